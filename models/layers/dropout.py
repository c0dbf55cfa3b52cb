"""Dropout whose decisions are drawn sixteen bits at a time.

PyTorch draws the noise of ``F.dropout`` on the CPU number by number and on one core: 12 ns for an
entry, in which a core multiplies and adds 900 pairs of a product of matrices. Here one 64-bit
number decides four entries. Of 65,536 values, n mean "drop", n the whole number nearest to
65,536 p, so that the probability is off by at most 2⁻¹⁷; what is kept is divided by 1 - n/65,536,
which leaves means exactly as they were. On other devices it is ``Tensor.bernoulli_``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_VALUES = 2**16
PART = 2**20  # entries that stay in the cache


def noise(shape: Sequence[int], probability: float, like: Tensor) -> Tensor:
    """Return 0 with the given probability and else what keeps the mean at 1.

    Args:
        shape: of the result.
        probability: of 0, in 0..1; exactly 0 or 1 draw nothing.
        like: a tensor of the result's dtype and device.

    Returns:
        A contiguous tensor, drawn from PyTorch's generator of that device.
    """
    shape = tuple(shape)
    if not 0 < probability < 1:
        return like.new_full(shape, float(probability <= 0))
    if like.device.type != "cpu":
        return like.new_empty(shape).bernoulli_(1 - probability).div_(1 - probability)
    count = torch.Size(shape).numel()
    seed = int(torch.randint(2**63 - 1, (), device="cpu"))
    words = np.random.SFC64(seed).random_raw(count // 4 + 1)
    drawn = torch.from_numpy(words).view(torch.int16)[:count]
    dropped = _dropped(probability)
    last = dropped - 1 - _VALUES // 2  # the largest number that means "drop"
    kept = drawn.clamp_(last, last + 1).sub_(last)  # 0 or 1
    return kept.to(like.dtype).mul_(_VALUES / (_VALUES - dropped)).reshape(shape)


def written_out(x: Tensor) -> bool:
    """Return whether gradients written out by hand serve: on the CPU, in one precision."""
    return x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def _dropped(probability: float) -> int:
    return min(max(round(probability * _VALUES), 1), _VALUES - 1)


def thin_relu_(x: Tensor, probability: float) -> float:
    """Overwrite x, which lies in one piece on the CPU, with dropout(ReLU(x)).

    No noise has to be kept for the backward pass: what is above 0 was not dropped.

    Returns:
        What was kept is multiplied by it: the derivative where the result is above 0.
    """
    scale = 1.0
    if probability > 0:
        for part in x.view(-1).split(PART):
            part.mul_(noise(part.shape, probability, part))
        scale = _VALUES / (_VALUES - _dropped(probability)) if probability < 1 else 0.0
    x.relu_()
    return scale
