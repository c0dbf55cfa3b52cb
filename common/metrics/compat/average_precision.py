"""Average precision of an explicit ranking, in the two definitions of the reference code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from utils.errors import UserError


def average_precision_first_k(order: Any, relevant: Any, k: int | None = None) -> Tensor:
    """Return AP over the first ``k`` relevant rows of a full ranking, wherever they rank.

    With the relevant rows at ranks r_1 < r_2 < … and T of them, this is
    1/min(T,k) · Σ_{j ≤ min(T,k)} j/r_j: the ranking is *not* cut at k. It is what kalenforn,
    DCMHT, MITH, DSPH, DNPH and TwDH call mAP@k, and it exceeds the usual AP@k, for which see
    :func:`common.metrics.average_precision_at`. With ``k`` None it is plain AP of one order.

    Args:
        order: integers [Q,N], row numbers of the database from nearest to farthest.
        relevant: bool or 0/1 [Q,N], relevance by row number (not by rank).
        k: number of relevant rows that enter the mean, or None for all.

    Returns:
        float64 [Q]; 0 for a query without a relevant row.

    Raises:
        UserError: shapes differ, or ``k`` is below 1.

    >>> average_precision_first_k([[2, 0, 1]], [[1, 1, 0]], k=1).tolist()
    [0.5]
    """
    if k is not None and k < 1:
        raise UserError(f"AP over the first k relevant rows needs k of at least 1, but got {k}.")
    hit = _by_rank(order, relevant)
    return _mean_precision(hit, hit if k is None else hit & (hit.cumsum(1) <= k))


def average_precision_in_top(order: Any, relevant: Any, at: int | None = None) -> Tensor:
    """Return AP over the relevant rows at ranks 1..``at``, divided by their number.

    It is what DeepHash-pytorch, PZSH, FIRe and PIXEL call mAP@R: of one order, the denominator
    ``"retrieved"`` of :func:`common.metrics.average_precision_at`.

    Args:
        order: as of :func:`average_precision_first_k`.
        relevant: likewise.
        at: number of ranks, from 0; None or more than N means all.

    Returns:
        float64 [Q]; 0 for a query without a relevant row at these ranks.

    Raises:
        UserError: shapes differ, or ``at`` is below 0.

    >>> average_precision_in_top([[2, 0, 1]], [[1, 1, 0]], at=2).tolist()
    [0.5]
    """
    if at is not None and at < 0:
        raise UserError(f"AP in the top ranks needs a number of ranks from 0, but got {at}.")
    hit = _by_rank(order, relevant)[:, :at]
    return _mean_precision(hit, hit)


def _by_rank(order: Any, relevant: Any) -> Tensor:
    """Return relevance by rank, bool [Q,N]."""
    positions = torch.as_tensor(order).long()
    relevance = torch.as_tensor(relevant)
    if positions.ndim != 2 or positions.shape != relevance.shape:
        raise UserError(
            "A ranking and its relevance are both [Q,N], but got "
            f"{list(positions.shape)} and {list(relevance.shape)}."
        )
    return (relevance > 0).gather(1, positions)


def _mean_precision(hit: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of precision at the ``counted`` ranks, float64 [Q]; 0 if there are none."""
    rank = torch.arange(1, hit.shape[1] + 1, device=hit.device, dtype=torch.float64)
    return (hit.cumsum(1) / rank * counted).sum(1) / counted.sum(1).clamp(min=1)
