"""Precision and recall along a ranking, by rank and by Hamming radius, from histograms.

By rank, ties count by their expectation: among n tied rows of which r are relevant, the first m
hold m·r/n relevant ones in the mean. By radius there are no ties.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.metrics.histograms import GradedHistograms, Histograms, as_integers, ratio
from utils.errors import UserError, unknown_name

_BLOCK = 2**20  # ranks

GAINS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "binary": lambda grade: (grade > 0).double(),
    "linear": lambda grade: grade,
    "exponential": lambda grade: 2**grade - 1,
}


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
    wrong = [rank for rank in ranks if not 1 <= rank <= histograms.database]
    if wrong and histograms.queries:
        raise UserError(
            f"Rank {wrong[0]} is outside of 1..{histograms.database}, the rows of the database."
        )
    ascending, position = np.unique(np.asarray(ranks, dtype=np.int64), return_inverse=True)
    return _relevant_above(histograms, ascending[None])[:, position]


def _relevant_above(histograms: Histograms, ranks: NDArray[np.int64]) -> Tensor:
    """Return the expected relevant rows above ascending ranks [1,P] or [Q,P], float64 [Q,P]."""
    from common.metrics.counting import closed_forms

    counts = np.zeros((histograms.queries, ranks.shape[1]))
    closed_forms.over_queries(closed_forms.relevant_above, *histograms.arrays(), ranks, counts)
    return torch.from_numpy(counts)


def curve_by_rank(histograms: Histograms, ranks: Sequence[int]) -> Curve:
    """Return precision@t and recall@t, expected over ties, per query and rank: [Q,P] each.

    Recall of a query without relevant rows is 0.

    Raises:
        UserError: a rank outside 1..N.

    >>> h = Histograms(torch.tensor([[1, 2]]), torch.tensor([[1, 1]]))
    >>> curve_by_rank(h, [1, 2, 3]).precision.tolist()[0]
    [1.0, 0.75, 0.6666666666666666]
    """
    relevant = relevant_above(histograms, ranks)
    divisor = torch.tensor(list(ranks), dtype=torch.float64)
    return Curve(relevant / divisor, ratio(relevant, histograms.total_relevant[:, None]))


def curve_by_radius(histograms: Histograms, average: str = "micro") -> Curve:
    """Return precision and recall of all rows within Hamming radius 0..K, [K+1] each.

    Args:
        histograms: counts of Q queries.
        average: ``"micro"`` pools the pairs of all queries; ``"macro"`` averages the queries'
            own values. A radius that holds no row has precision 0, not 1, and a query without
            relevant rows has recall 0.
    """
    rows, relevant = histograms.rows, histograms.relevant
    if average == "micro":
        rows, relevant = rows.sum(0, keepdim=True), relevant.sum(0, keepdim=True)
    elif average != "macro":
        raise UserError(f"Unknown average '{average}'; 'micro' and 'macro' are known.")
    within, within_r = rows.cumsum(1), relevant.cumsum(1)
    precision, recall = ratio(within_r, within), ratio(within_r, within_r[:, -1:])
    return Curve(mean_over_queries(precision), mean_over_queries(recall))


def precision_within(histograms: Histograms, radius: int = 2) -> Tensor:
    """Return precision of the rows within ``radius`` per query, float64 [Q]; 0 if there are none.

    The field's "hash look-up" number is its mean at radius 2. A radius above K means K.
    """
    within = slice(0, radius + 1)
    return ratio(histograms.relevant[:, within].sum(1), histograms.rows[:, within].sum(1))


def r_precision(histograms: Histograms) -> Tensor:
    """Return precision at rank T of a query with T relevant rows, expected over ties, float64 [Q].

    0 for a query without relevant rows.
    """
    total = histograms.total_relevant
    return ratio(_relevant_above(histograms, as_integers(total)[:, None])[:, 0], total)


def ndcg_at(
    histograms: Histograms | GradedHistograms, at: int | None = None, gain: str = "binary"
) -> Tensor:
    """Return NDCG@R with discount 1/log2(1 + rank), expected over ties.

    DCG@R = Σ_{t ≤ R} G(g_t)/log2(1 + t) for the row of grade g_t at rank t, divided by that of
    the best order, in which grades fall.

    Args:
        histograms: counts of Q queries; by grade for a gain other than ``"binary"``.
        at: the cut R ≥ 1; None or more than the database means no cut.
        gain: ``"binary"``, G = 1 for a relevant row; ``"linear"``, G = g, the number of shared
            labels; ``"exponential"``, G = 2^g - 1.

    Returns:
        float64 [Q]; 0 for a query without relevant rows.

    Raises:
        UserError: an unknown gain, or one that needs counts by grade.
    """
    if gain not in GAINS:
        raise unknown_name("gain of NDCG", gain, tuple(GAINS))
    if isinstance(histograms, Histograms):
        if gain != "binary":
            raise UserError(f"NDCG with gain '{gain}' needs counts by grade, see count_grades.")
        best = histograms.total_relevant[:, None]  # the relevant rows come first
        return normalised_gain(
            histograms.rows, histograms.relevant.double(), best, best.double(), at
        )
    counts = histograms.counts  # [Q,K+1,G]
    by_grade = GAINS[gain](torch.arange(counts.shape[2], dtype=torch.float64))
    grades = counts.sum(1).flip(1)  # the highest first
    return normalised_gain(
        counts.sum(2), counts.double() @ by_grade, grades, grades * by_grade.flip(0), at
    )


def normalised_gain(
    sizes: Tensor, gains: Tensor, best_sizes: Tensor, best_gains: Tensor, at: int | None
) -> Tensor:
    """Return DCG@R of tied groups over that of the best order, float64 [Q]; 0 where that is 0.

    Sizes are int64 [Q,P], rows of consecutive groups; gains float64 [Q,P], summed over the rows.
    """
    database = int(sizes[0].sum()) if len(sizes) else 0
    cut = database if at is None else min(at, database)
    dcg = _discounted_gain(sizes, gains, cut)
    ideal = _discounted_gain(best_sizes, best_gains, cut)
    return torch.where(ideal > 0, dcg / ideal, 0.0)


def _discounted_gain(sizes: Tensor, gains: Tensor, cut: int) -> Tensor:
    """Return the expected Σ gain/log2(1 + t) over ranks t ≤ ``cut`` of tied groups, float64 [Q].

    The discounts are summed in blocks of ranks, so that memory does not grow with the database.
    """
    from common.metrics.counting import closed_forms

    sums = np.zeros(len(sizes))
    groups = as_integers(sizes), np.ascontiguousarray(gains.cpu().numpy())
    for before in range(0, cut, _BLOCK):
        ranks = np.arange(before + 1, min(before + _BLOCK, cut) + 1, dtype=np.float64)
        upto = np.concatenate([np.zeros(1), np.cumsum(1 / np.log2(1 + ranks))])
        closed_forms.over_queries(closed_forms.add_discounted, *groups, before, upto, sums)
    return torch.from_numpy(sums)
