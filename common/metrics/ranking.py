"""Average precision of an explicit ranking, in the definition of the cross-modal reference code."""

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
    positions = torch.as_tensor(order).long()
    relevance = torch.as_tensor(relevant)
    if positions.ndim != 2 or positions.shape != relevance.shape:
        raise UserError(
            "A ranking and its relevance are both [Q,N], but got "
            f"{list(positions.shape)} and {list(relevance.shape)}."
        )
    if k is not None and k < 1:
        raise UserError(f"AP over the first k relevant rows needs k of at least 1, but got {k}.")
    hit = (relevance > 0).gather(1, positions)  # [Q,N], by rank
    found = hit.cumsum(1)
    counted = hit if k is None else hit & (found <= k)
    rank = torch.arange(1, hit.shape[1] + 1, device=hit.device, dtype=torch.float64)
    return (found / rank * counted).sum(1) / counted.sum(1).clamp(min=1)
