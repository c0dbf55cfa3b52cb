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
    the terms up to 1/64 come from a table, and those beyond from log1p and differences of the
    asymptotic series H(n) = ln n + γ + 1/2n - 1/12n² + 1/120n⁴ - 1/252n⁶ in factored form.

    Args:
        start: integers ≥ 0, any shape.
        count: integers ≥ 0, broadcastable to it.

    Returns:
        float64 with a relative error of a few 1e-15.

    >>> harmonic_difference(torch.tensor([0, 10**9]), torch.tensor([2, 1])).tolist()
    [1.5, 9.99999999e-10]
    """
    table = _TABLE.to(start.device)
    first = start.clamp(max=_SERIES_FROM)
    split = (start + count).clamp(max=_SERIES_FROM)
    a = start.clamp(min=_SERIES_FROM).double()
    b = (start + count).clamp(min=_SERIES_FROM).double()
    reciprocal = (b - a) / (a * b)  # 1/a - 1/b
    square = reciprocal * (1 / a + 1 / b)  # 1/a² - 1/b²
    fourth = square * (1 / a**2 + 1 / b**2)
    sixth = square * (1 / a**4 + 1 / (a * b) ** 2 + 1 / b**4)
    series = torch.log1p((b - a) / a) - reciprocal / 2 + square / 12 - fourth / 120 + sixth / 252
    return table[split] - table[first] + series
