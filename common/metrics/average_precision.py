"""Average precision over tied rankings, in closed form from histograms.

Rows at equal distance form a bucket whose inner order is arbitrary. AP is then a random number;
its expectation over all orders, and its extremes, follow from the two histograms alone.

Sources: expectation, McSherry & Najork, "Computing information retrieval performance measures
efficiently in the presence of tied scores", ECIR 2008; its use for hashing, He et al., "Hashing
as tie-aware learning to rank", CVPR 2018, arXiv:1705.08562. The extremes, the cut at rank R and
its three denominators are derived in the comments below.

Symbols: a bucket holds n rows, r of them relevant; N and R are the rows and the relevant rows in
all nearer buckets; m of its positions lie above the cut; ΔH(s, c) = Σ_{i=1..c} 1/(s+i).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from common.metrics.harmonic import harmonic_difference
from common.metrics.histograms import Histograms, ratio
from utils.errors import UserError, unknown_name

DENOMINATORS = ("retrieved", "min", "total")
_BLOCK = 2**15  # elements of a temporary: 256 KiB in float64, which stay in the cache
_TAIL = 46.0  # a hypergeometric tail below exp(-46) = 1e-20 is left out


class TieBand(NamedTuple):
    """A metric per query over all orders of tied rows.

    Attributes:
        expected: float64 [Q], mean over all orders, equally likely.
        worst: float64 [Q], least value that an order gives.
        best: float64 [Q], greatest value that an order gives.
    """

    expected: Tensor
    worst: Tensor
    best: Tensor


def average_precision(histograms: Histograms) -> TieBand:
    """Return AP over the whole database: the mean, over relevant rows, of precision at their ranks.

    A query without a relevant row has AP 0.

    >>> one_bucket = Histograms(torch.tensor([[3, 0]]), torch.tensor([[1, 0]]))
    >>> [round(float(value), 4) for value in average_precision(one_bucket)]
    [0.6111, 0.3333, 1.0]
    """
    return average_precision_at(histograms, None, "total")


def average_precision_at(
    histograms: Histograms, at: int | None, denominator: str = "min"
) -> TieBand:
    """Return AP@R: precision at each relevant rank 1..R, summed, then divided by the denominator.

    Args:
        histograms: counts of Q queries.
        at: the cut R ≥ 1; None or more than the database means no cut.
        denominator: what the sum is divided by: ``"retrieved"``, relevant rows at ranks 1..R
            (itself random under ties); ``"min"``, the lesser of R and all relevant rows, so that
            1 is reachable; ``"total"``, all relevant rows. Where it is 0, AP is 0.

    Raises:
        UserError: a cut below 1 or an unknown denominator.
    """
    if denominator not in DENOMINATORS:
        raise unknown_name("denominator of AP@R", denominator, DENOMINATORS)
    if at is not None and at < 1:
        raise UserError(f"AP@R needs a cut R of at least 1, but got {at}.")
    if histograms.queries == 0:
        return TieBand(*(torch.zeros(0, dtype=torch.float64) for _ in range(3)))
    cut = min(at, histograms.database) if at is not None else histograms.database

    def of_block(block: Histograms) -> TieBand:
        if denominator == "retrieved":
            return _over_retrieved(block, cut)
        total = block.total_relevant
        divisor = total if denominator == "total" else total.clamp(max=cut)
        return TieBand(*(ratio(part.sum(1), divisor) for part in _bucket_sums(block, cut)))

    bands = [of_block(block) for block in _blocks(histograms)]
    return _ordered(TieBand(*(torch.cat(parts) for parts in zip(*bands, strict=True))))


def _blocks(histograms: Histograms) -> Iterator[Histograms]:
    """Cut histograms into blocks of queries with bounded temporaries.

    Distances at which no query of a block has a row are left out at both ends: they add nothing.
    """
    step = max(1, _BLOCK // (histograms.bits + 1))
    for top in range(0, histograms.queries, step):
        block = histograms.select(slice(top, top + step))
        filled = block.rows.amax(0).nonzero().flatten()
        kept = slice(int(filled[0]), int(filled[-1]) + 1) if len(filled) else slice(0, 1)
        yield Histograms(block.rows[:, kept], block.relevant[:, kept])


def _ordered(band: TieBand) -> TieBand:
    """Remove rounding that would put the expectation outside the extremes, or AP outside 0..1."""
    worst = band.worst.clamp(0, 1)
    best = torch.maximum(band.best.clamp(0, 1), worst)
    return TieBand(torch.minimum(torch.maximum(band.expected, worst), best), worst, best)


def _expected_sum(n: Tensor, r: Tensor, above: Tensor, above_r: Tensor, m: Tensor) -> Tensor:
    """Return the expected sum of precisions over the first m positions of a bucket.

    Position i is relevant with probability r/n, and given that it is, (i-1)·(r-1)/(n-1) of the
    positions before it are expected to be: Σ_i r/n·(R + 1 + (i-1)·c)/(N + i), c = (r-1)/(n-1).
    """
    reciprocal = harmonic_difference(above, m)  # ΔH
    rest = m - (above + 1) * reciprocal  # Σ (i-1)/(N+i)
    neighbours = ratio(r - 1, n - 1)  # c; without effect for n = 1, where rest = 0
    return ratio(r, n) * ((above_r + 1) * reciprocal + neighbours * rest)


def _run_sum(above: Tensor, above_r: Tensor, skipped: Tensor, count: Tensor) -> Tensor:
    """Return Σ_{i=1..count} (R + i)/(N + skipped + i): relevant rows in one run after others."""
    start = above + skipped
    return count + (above_r - start) * harmonic_difference(start, count)


def _bucket_sums(block: Histograms, cut: int) -> TieBand:
    """Return each bucket's sum of precisions at its relevant ranks 1..cut, float64 [Q,K+1].

    Moving a relevant row before an irrelevant one never lowers the sum, so the best order has
    the relevant rows first and the worst has them last.
    """
    n, r = block.rows, block.relevant
    above = n.cumsum(1) - n
    above_r = r.cumsum(1) - r
    m = torch.minimum((cut - above).clamp(min=0), n)
    last = (m - (n - r)).clamp(min=0)  # relevant rows above the cut when irrelevant ones go first
    return TieBand(
        expected=_expected_sum(n, r, above, above_r, m),
        worst=_run_sum(above, above_r, n - r, last),
        best=_run_sum(above, above_r, torch.zeros_like(n), torch.minimum(r, m)),
    )


class _Straddle(NamedTuple):
    """The bucket with rank R inside, per query: integers [Q], and the sums of nearer buckets."""

    n: Tensor
    r: Tensor
    above: Tensor
    above_r: Tensor
    m: Tensor  # positions above the cut, 1..n
    nearer: TieBand


def _over_retrieved(block: Histograms, cut: int) -> TieBand:
    """Return AP@R divided by the relevant rows at ranks 1..R.

    Only the bucket with rank R inside makes the divisor random: R + j, where j of its m positions
    above the cut are relevant. Given j, it is a bucket of m rows with j relevant.
    """
    n, r = block.rows, block.relevant
    filled = n.cumsum(1)
    bucket = torch.searchsorted(filled, torch.full_like(filled[:, :1], cut))  # [Q,1]
    is_nearer = torch.arange(n.shape[1]) < bucket
    above = (filled - n).gather(1, bucket)[:, 0]
    straddle = _Straddle(
        n=n.gather(1, bucket)[:, 0],
        r=r.gather(1, bucket)[:, 0],
        above=above,
        above_r=(r.cumsum(1) - r).gather(1, bucket)[:, 0],
        m=cut - above,
        nearer=TieBand(*((part * is_nearer).sum(1) for part in _bucket_sums(block, cut))),
    )
    low = (straddle.m - (straddle.n - straddle.r)).clamp(min=0)  # least and greatest j
    high = torch.minimum(straddle.m, straddle.r)
    return TieBand(
        expected=_retrieved_expected(straddle, low, high),
        worst=_retrieved_worst(straddle, low, high),
        best=_retrieved_best(straddle, low, high),
    )


def _retrieved_best(s: _Straddle, low: Tensor, high: Tensor) -> Tensor:
    """Return the best AP@R over the retrieved.

    With the relevant rows first, each further one adds a higher precision than the one before;
    the mean of such a sequence first falls, then rises, so its greatest value is at an end.
    """

    def value(j: Tensor) -> Tensor:
        return ratio(s.nearer.best + _run_sum(s.above, s.above_r, j * 0, j), s.above_r + j)

    return torch.maximum(value(low), value(high))


def _retrieved_worst(s: _Straddle, low: Tensor, high: Tensor) -> Tensor:
    """Return the worst AP@R over the retrieved.

    With j relevant rows last in the m positions, their sum W(j) is convex:
    W(j+1) - W(j) = ΔH(N+m-j, j) + (R+1)/(N+m-j) grows with j. So (A + W(j))/(R + j) falls, then
    rises, and bisection finds the first j from which it rises.
    """

    def value(j: Tensor) -> Tensor:
        total = s.nearer.worst + _run_sum(s.above, s.above_r, s.m - j, j)
        return ratio(total, s.above_r + j)

    left, right = low, high
    while bool((left < right).any()):
        middle = (left + right) // 2
        start = s.above + s.m - middle
        step = harmonic_difference(start, middle) + ratio(s.above_r + 1, start)
        rises = step >= value(middle)
        right = torch.where(rises, middle, right)
        left = torch.where(rises | (left >= right), left, middle + 1)
    return value(left)


def _retrieved_expected(s: _Straddle, low: Tensor, high: Tensor) -> Tensor:
    """Return the expected AP@R over the retrieved: a sum over j ~ Hypergeometric(n, r, m).

    The sum runs over mean ± width, outside of which Bernstein's bound (for the binomial, which
    spreads wider: Hoeffding 1963) leaves less than exp(-46).
    """
    share = ratio(s.r, s.n)
    centre = (s.m * share).round().long()
    variance = torch.minimum(s.m, s.n - s.m) * share * (1 - share)
    width = (2 * _TAIL / 3 + (2 * _TAIL * variance).sqrt()).ceil().long() + 1
    first = torch.maximum(low, centre - width)
    last = torch.minimum(high, centre + width)
    terms = int((last - first).max()) + 1
    step = max(1, _BLOCK // terms)
    parts = []
    for top in range(0, len(first), step):
        rows = slice(top, top + step)
        n, r, above, above_r, m = (part[rows, None] for part in s[:5])
        j = first[rows, None] + torch.arange(terms)  # [q,terms]
        weight = _hypergeometric(j, j <= last[rows, None], n, r, m)
        total = s.nearer.expected[rows, None] + _expected_sum(m, j, above, above_r, m)
        parts.append((weight * ratio(total, above_r + j)).sum(1))
    return torch.cat(parts)


def _hypergeometric(j: Tensor, valid: Tensor, n: Tensor, r: Tensor, m: Tensor) -> Tensor:
    """Return P(j relevant among m of n rows), normalised over the valid j of a row, [q,terms].

    By the ratio of neighbours P(j+1)/P(j) = (r-j)(m-j) / ((j+1)(n-r-m+j+1)): differences of
    log-gamma would lose digits for large n.
    """
    factors = ((r - j) * (m - j)).double() / ((j + 1) * (n - r - m + j + 1)).double()
    inside = valid[:, :-1] & valid[:, 1:]
    steps = torch.where(inside, factors[:, :-1], 1.0).log().cumsum(1)
    logs = torch.cat([torch.zeros(len(j), 1, dtype=torch.float64), steps], dim=1)
    return logs.masked_fill(~valid, -math.inf).softmax(dim=1)


def mean_band(band: TieBand) -> dict[str, float]:
    """Return the means over queries as ``{"expected", "worst", "best"}``; 0 without any query."""
    return {
        name: float(values.mean()) if len(values) else 0.0
        for name, values in band._asdict().items()
    }
