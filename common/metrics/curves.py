"""Precision and recall along a ranking, by rank and by Hamming radius, from histograms.

By rank, ties count by their expectation: among n tied rows of which r are relevant, the first m
hold m·r/n relevant ones in the mean. By radius nothing is tied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from common.metrics.histograms import Histograms, ratio
from utils.errors import UserError


class Curve(NamedTuple):
    """Precision and recall over the same points, float64; P points.

    Attributes:
        precision: [P] means over queries, or [Q,P] values per query.
        recall: the same.
    """

    precision: Tensor
    recall: Tensor


def mean_over_queries(values: Tensor) -> Tensor:
    """Return the mean over the first axis, 0 without any query."""
    return values.sum(0) / max(1, len(values))


def log_ranks(database: int, points: int = 100) -> list[int]:
    """Return at most ``points`` distinct ranks from 1 to ``database``, evenly spaced in log scale.

    >>> log_ranks(1000, points=4)
    [1, 10, 100, 1000]
    """
    spaced = torch.logspace(0, torch.tensor(database).double().log10(), points, dtype=torch.float64)
    return sorted({min(database, max(1, int(rank))) for rank in spaced.round()} | {1, database})


def relevant_above(histograms: Histograms, ranks: Sequence[int]) -> Tensor:
    """Return the expected number of relevant rows at ranks 1..t for every t in ``ranks``.

    Returns:
        float64 [Q,P].

    Raises:
        UserError: a rank outside 1..N.
    """
    n, r = histograms.rows, histograms.relevant
    wrong = [rank for rank in ranks if not 1 <= rank <= histograms.database]
    if wrong and histograms.queries:
        raise UserError(
            f"Rank {wrong[0]} is outside of 1..{histograms.database}, the rows of the database."
        )
    rank = torch.tensor(list(ranks), dtype=torch.int64).expand(len(n), -1).contiguous()  # [Q,P]
    filled = n.cumsum(1)
    bucket = torch.searchsorted(filled, rank)  # the bucket that holds rank t
    above = (filled - n).gather(1, bucket)
    above_r = (r.cumsum(1) - r).gather(1, bucket)
    return above_r + (rank - above) * ratio(r.gather(1, bucket), n.gather(1, bucket))


def curve_by_rank(histograms: Histograms, ranks: Sequence[int]) -> Curve:
    """Return precision@t and recall@t, expected over ties, per query and rank: [Q,P] each.

    Recall of a query without relevant rows is 0.

    Raises:
        UserError: a rank outside 1..N.

    >>> h = Histograms(torch.tensor([[1, 2]]), torch.tensor([[1, 1]]))
    >>> curve_by_rank(h, [1, 2, 3]).precision.tolist()[0]
    [1.0, 0.75, 0.6666666666666666]
    """
    found = relevant_above(histograms, ranks)
    divisor = torch.tensor(list(ranks), dtype=torch.float64)
    return Curve(found / divisor, ratio(found, histograms.total_relevant[:, None]))


def curve_by_radius(histograms: Histograms, average: str = "micro") -> Curve:
    """Return precision and recall of all rows within Hamming radius 0..K, [K+1] each.

    Args:
        histograms: counts of Q queries.
        average: ``"micro"`` pools the pairs of all queries; ``"macro"`` averages the queries'
            own values. A radius that holds no row has precision 0, not 1, and a query without
            relevant rows has recall 0.
    """
    within = histograms.rows.cumsum(1)
    within_r = histograms.relevant.cumsum(1)
    if average == "micro":
        within, within_r = within.sum(0), within_r.sum(0)
        return Curve(ratio(within_r, within), ratio(within_r, within_r[-1]))
    if average == "macro":
        return Curve(
            mean_over_queries(ratio(within_r, within)),
            mean_over_queries(ratio(within_r, histograms.total_relevant[:, None])),
        )
    raise UserError(f"Unknown average '{average}'; 'micro' and 'macro' are known.")


def precision_within(histograms: Histograms, radius: int = 2) -> Tensor:
    """Return precision of the rows within ``radius`` per query, float64 [Q]; 0 if there are none.

    The field's "hash look-up" number is its mean at radius 2. A radius above K means K.
    """
    within = slice(0, radius + 1)
    return ratio(histograms.relevant[:, within].sum(1), histograms.rows[:, within].sum(1))


def ndcg_at(histograms: Histograms, at: int | None = None) -> Tensor:
    """Return NDCG@R with binary gain and discount 1/log2(1 + rank), expected over ties.

    Args:
        histograms: counts of Q queries.
        at: the cut R ≥ 1; None or more than the database means no cut.

    Returns:
        float64 [Q]; 0 for a query without relevant rows.
    """
    n, r = histograms.rows, histograms.relevant
    cut = histograms.database if at is None else min(at, histograms.database)
    discount = 1 / torch.arange(2, cut + 2, dtype=torch.float64).log2()
    gain = torch.cat([torch.zeros(1, dtype=torch.float64), discount.cumsum(0)])  # [R+1]
    end = n.cumsum(1)
    inside = gain[end.clamp(max=cut)] - gain[(end - n).clamp(max=cut)]  # [Q,K+1]
    ideal = gain[histograms.total_relevant.clamp(max=cut)]
    return torch.where(ideal > 0, (ratio(r, n) * inside).sum(1) / ideal, 0.0)
