"""Sums of reciprocals, the one transcendental thing in an average precision."""

from __future__ import annotations

import torch
from torch import Tensor

_SERIES_FROM = 64  # the first term left out, 1/(240 n^8), is below 2e-17 from here
_TABLE = torch.zeros(_SERIES_FROM + 1, dtype=torch.float64)  # H(0), …, H(64)
_TABLE[1:] = (1 / torch.arange(1, _SERIES_FROM + 1, dtype=torch.float64)).cumsum(0)


def harmonic_difference(start: Tensor, count: Tensor) -> Tensor:
    """Return H(start + count) - H(start) = sum of 1/(start + i) for i = 1..count.

    Differences of tabulated harmonic numbers lose digits for few terms far down a ranking. Here
    the terms up to 1/64 come from a table, and those beyond from log1p and the difference of what
    the asymptotic series of H(n) has beside the logarithm.

    Args:
        start: integers ≥ 0, any shape.
        count: integers ≥ 0, broadcastable to it.

    Returns:
        float64 with a relative error of a few 1e-15.

    >>> harmonic_difference(torch.tensor([0, 10**9]), torch.tensor([2, 1])).tolist()
    [1.5, 9.99999999e-10]
    """
    end = start + count
    table = _TABLE.to(start.device)
    small = table[end.clamp(max=_SERIES_FROM)] - table[start.clamp(max=_SERIES_FROM)]
    a = start.clamp(min=_SERIES_FROM).double()
    b = end.clamp(min=_SERIES_FROM).double()
    return small + torch.log1p((b - a) / a) + (_beyond_log(b) - _beyond_log(a))


def _beyond_log(n: Tensor) -> Tensor:
    """Return H(n) - ln n - γ = 1/2n - 1/12n² + 1/120n⁴ - 1/252n⁶.

    Rounding of it, 1e-16/2n, is little beside any 1/(n+1) that a difference holds.
    """
    y = 1 / n
    square = y * y
    return y * (0.5 - y * (1 / 12 - square * (1 / 120 - square / 252)))
