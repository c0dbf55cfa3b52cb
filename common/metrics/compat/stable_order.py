"""The stable order of a distance matrix: nearest first, equal distances by row number."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError

_WIDEST = 2**16  # keys that NumPy sorts by counting
_LARGEST = 2**23  # doubled distances below have no rounding in float32


def stable_order(distance: Tensor) -> Tensor:
    """Return the row numbers from nearest to farthest; rows at equal distance by their number.

    Distances that are multiples of 1/2, as those of codes of -1, 0, +1, become keys of 8 or 16
    bits, which NumPy's stable sort orders by counting (a radix sort), in time linear in N. Measured
    for Q = 50, N = 100,000, K = 64 on one core: 7 ns a pair from float32 and 24 ns from float64
    distances, of which the sort is 3 to 10; ``torch.sort(stable=True)`` took 40 to 60 ns on int16
    and 54 to 70 ns on float32. Other distances are left to that one.

    Args:
        distance: [Q,N] of any real dtype, any device.

    Returns:
        int64 [Q,N] on the device of ``distance``.

    Raises:
        UserError: another shape, or a distance that is not finite.

    >>> stable_order(torch.tensor([[1.0, 0.5, 1.0, 0.0]])).tolist()
    [[3, 1, 0, 2]]
    """
    if distance.ndim != 2:
        raise UserError(
            f"Distances have shape {list(distance.shape)}; one row per query, [Q,N], is needed."
        )
    if distance.numel() == 0:
        return torch.zeros(distance.shape, dtype=torch.int64, device=distance.device)
    keys = _narrow_keys(distance)
    if keys is None:
        return torch.sort(distance, dim=1, stable=True)[1]
    order = np.argsort(keys.cpu().numpy(), axis=1, kind="stable")
    return torch.from_numpy(order).to(distance.device, torch.int64)


def _narrow_keys(distance: Tensor) -> Tensor | None:
    """Return keys uint8 or uint16 in the order of the distances, or None if there are none."""
    low, high = (2 * float(end) for end in distance.aminmax())  # NaN if any distance is
    if not math.isfinite(high - low):
        raise UserError("Distances hold NaN or infinity; every one must be a finite number.")
    if high - low >= _WIDEST or max(abs(low), abs(high)) >= _LARGEST:
        return None
    narrow = distance.dtype in (torch.float16, torch.bfloat16)
    doubled = 2 * (distance.float() if narrow or not distance.is_floating_point() else distance)
    keys = doubled.to(torch.int32)
    if not torch.equal(keys.to(doubled.dtype), doubled):
        return None
    return (keys - int(low)).to(torch.uint8 if high - low < 2**8 else torch.uint16)
