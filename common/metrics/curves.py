"""Precision and recall along a ranking, by rank and by Hamming radius, from histograms.

By rank, ties count by their expectation: among n tied rows of which r are relevant, the first m
hold m·r/n relevant ones in the mean. By radius nothing is tied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from common.metrics.histograms import GradedHistograms, Histograms, ratio
from utils.errors import UserError, unknown_name

_PIECE = 2**20  # ranks

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


def r_precision(histograms: Histograms) -> Tensor:
    """Return precision at rank T of a query with T relevant rows, expected over ties, float64 [Q].

    0 for a query without relevant rows.
    """
    total = histograms.total_relevant
    n, r = histograms.rows, histograms.relevant
    filled = n.cumsum(1)
    bucket = torch.searchsorted(filled, total.clamp(min=1)[:, None])  # [Q,1], holds rank T
    above = (filled - n).gather(1, bucket)[:, 0]
    above_r = (r.cumsum(1) - r).gather(1, bucket)[:, 0]
    share = ratio(r.gather(1, bucket), n.gather(1, bucket))[:, 0]
    return ratio(above_r + (total - above) * share, total)


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
        UserError: an unknown gain, or grades are needed that were not counted.
    """
    if gain not in GAINS:
        raise unknown_name("gain of NDCG", gain, tuple(GAINS))
    if isinstance(histograms, Histograms):
        if gain != "binary":
            raise UserError(f"NDCG with gain '{gain}' needs counts by grade, see count_grades.")
        histograms = GradedHistograms.of(histograms)
    counts = histograms.counts  # [Q,K+1,G]
    gains = GAINS[gain](torch.arange(counts.shape[2], dtype=torch.float64))
    n = counts.sum(2)
    database = int(n[0].sum()) if len(n) else 0
    cut = database if at is None else min(at, database)
    dcg = (ratio(counts.double() @ gains, n) * _discount_sums(n, cut)).sum(1)
    falling = counts.sum(1).flip(1)  # [Q,G], rows of each grade, the highest first
    ideal = (gains.flip(0) * _discount_sums(falling, cut)).sum(1)
    return torch.where(ideal > 0, dcg / ideal, 0.0)


def _discount_sums(sizes: Tensor, cut: int) -> Tensor:
    """Return Σ 1/log2(1 + t) over the ranks t ≤ ``cut`` of consecutive groups, float64 [Q,P].

    Groups of ``sizes`` [Q,P] rows follow one another. The sums up to each rank are made piece by
    piece, so that memory does not grow with the database.
    """
    edges = sizes.cumsum(1).clamp_(max=cut)  # [Q,P], where the groups end
    sums = torch.zeros(edges.shape, dtype=torch.float64)
    upto = torch.zeros(1, dtype=torch.float64)  # at rank `start`, then at those of the piece
    for start in range(0, cut, _PIECE):
        ranks = torch.arange(start + 1, min(start + _PIECE, cut) + 1, dtype=torch.float64)
        upto = torch.cat([upto[-1:], upto[-1] + (1 / (1 + ranks).log2_()).cumsum(0)])
        if cut <= _PIECE:
            sums = upto[edges]
        else:
            place = (edges - start).clamp_(max=len(ranks))  # an edge beyond comes again
            sums = torch.where(place >= 0, upto[place.clamp(min=0)], sums)
    return sums.diff(dim=1, prepend=sums.new_zeros(len(sums), 1))
