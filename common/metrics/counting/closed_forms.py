"""Closed forms over tied rankings, compiled by numba: one pass over the buckets of each query.

A bucket is the rows at one distance: n of them, r relevant; N and R are the rows and the relevant
rows in all nearer buckets; m of its positions lie above the cut; ΔH(s, c) = Σ_{i=1..c} 1/(s+i).
The definitions are in average_precision.py and curves.py, the derivations here.

As tensor operations on all buckets at once these cost more than counting does for a small
database: dozens of passes over memory, most of them over empty buckets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

Array = Any  # of the types that numba infers

RETRIEVED, MIN, TOTAL = 0, 1, 2  # what AP@R is divided by, numbered as in DENOMINATORS
_SERIES_FROM = 64  # the first term left out, 1/(240 n^8), is below 2e-17 from here
_HARMONIC = np.concatenate([np.zeros(1), np.cumsum(1 / np.arange(1.0, _SERIES_FROM + 1))])
_NEGLIGIBLE = 1e-22  # of the weight at the mode
_BUCKETS_PER_THREAD = 16_384  # fewer are not worth a thread


def over_queries(loop: Callable[..., None], first: NDArray[Any], *rest: Any) -> None:
    """Run ``loop(first, *rest, top, end)`` over shares of the rows of ``first`` [Q,…] in threads.

    Queries are independent, so the shares change no result. The loops hold no interpreter lock.
    """
    queries = len(first)
    shares = max(1, min(torch.get_num_threads(), queries, first.size // _BUCKETS_PER_THREAD))
    edges = np.linspace(0, queries, shares + 1, dtype=int)
    if shares == 1:
        loop(first, *rest, 0, queries)
        return
    with ThreadPoolExecutor(shares) as pool:
        list(pool.map(lambda top, end: loop(first, *rest, top, end), edges[:-1], edges[1:]))


@numba.njit(nogil=True, cache=True)
def harmonic_difference(start: int, count: int) -> float:
    """Return H(start + count) - H(start) = Σ 1/(start + i) for i = 1..count, both integers ≥ 0.

    Differences of tabulated harmonic numbers lose digits for few terms far down a ranking. Here
    the terms up to 1/64 come from a table, and those beyond from log1p and the difference of what
    the asymptotic series of H(n) has beside the logarithm: relative error a few 1e-15.
    """
    end = start + count
    small = _HARMONIC[min(end, _SERIES_FROM)] - _HARMONIC[min(start, _SERIES_FROM)]
    if end <= _SERIES_FROM:
        return small
    a, b = float(max(start, _SERIES_FROM)), float(end)
    return small + math.log1p((b - a) / a) + (_beyond_log(b) - _beyond_log(a))


@numba.njit(nogil=True, cache=True)
def _beyond_log(n: float) -> float:
    """Return H(n) - ln n - γ = 1/2n - 1/12n² + 1/120n⁴ - 1/252n⁶.

    Its rounding error, 1e-16/2n, is small beside the 1/(n+1) of any difference.
    """
    y = 1 / n
    square = y * y
    return y * (0.5 - y * (1 / 12 - square * (1 / 120 - square / 252)))


@numba.njit(nogil=True, cache=True)
def _expected_sum(n: int, r: int, above: int, above_r: int, m: int) -> float:
    """Return the expected sum of precisions over the first m positions of a bucket.

    Position i is relevant with probability r/n, and given that it is, (i-1)·(r-1)/(n-1) of the
    positions before it are expected to be: Σ_i r/n·(R + 1 + (i-1)·c)/(N + i), c = (r-1)/(n-1).
    """
    if r == 0:
        return 0.0
    reciprocal = harmonic_difference(above, m)  # ΔH
    total = (above_r + 1) * reciprocal
    if n > 1:
        total += (r - 1) / (n - 1) * (m - (above + 1) * reciprocal)  # c·Σ (i-1)/(N+i)
    return r / n * total


@numba.njit(nogil=True, cache=True)
def _run_sum(above: int, above_r: int, skipped: int, count: int) -> float:
    """Return Σ_{i=1..count} (R + i)/(N + skipped + i): relevant rows in one run after others."""
    if count == 0:
        return 0.0
    start = above + skipped
    return count + (above_r - start) * harmonic_difference(start, count)


@numba.njit(nogil=True, cache=True)
def average_precisions(
    rows: Array, relevant: Array, cut: int, divisor: int, bands: Array, top: int, end: int
) -> None:
    """Write AP@``cut`` of queries ``top``..``end``: expected, worst, best.

    Moving a relevant row before an irrelevant one never lowers a sum of precisions, so the best
    order has the relevant rows of a bucket first and the worst has them last.

    Args:
        rows: int64 [Q,K+1], all rows by distance.
        relevant: int64 [Q,K+1], the relevant ones.
        cut: R, 1 to the number of rows.
        divisor: ``RETRIEVED``, ``MIN`` or ``TOTAL``.
        bands: float64 [Q,3], written.
        top: first query.
        end: the one after the last.
    """
    for q in range(top, end):
        above = above_r = 0
        expected = worst = best = 0.0
        for d in range(rows.shape[1]):
            n, r = rows[q, d], relevant[q, d]
            m = min(cut - above, n)
            low, high = max(0, m - (n - r)), min(r, m)  # relevant rows above the cut, last or first
            if divisor == RETRIEVED and above + n >= cut:
                # Rank R is inside, so the divisor is random: R + j, where j of the m positions are
                # relevant. Given j, it is a bucket of m rows with j relevant.
                expected = _expected_retrieved(n, r, above, above_r, m, low, high, expected)
                worst = _worst_retrieved(above, above_r, m, low, high, worst)
                best = max(
                    _run_mean(above, above_r, 0, low, best),
                    _run_mean(above, above_r, 0, high, best),
                )
                break
            if r > 0:
                expected += _expected_sum(n, r, above, above_r, m)
                worst += _run_sum(above, above_r, n - r, low)
                best += _run_sum(above, above_r, 0, high)
            above += n
            above_r += r
            if above >= cut:
                break
        if divisor != RETRIEVED:
            total = relevant[q].sum()
            by = max(1, min(total, cut) if divisor == MIN else total)
            expected, worst, best = expected / by, worst / by, best / by
        # rounding must not put the expectation outside the extremes, or AP outside 0..1
        worst = min(max(worst, 0.0), 1.0)
        best = max(min(best, 1.0), worst)
        bands[q, 0], bands[q, 1], bands[q, 2] = min(max(expected, worst), best), worst, best


@numba.njit(nogil=True, cache=True)
def _run_mean(above: int, above_r: int, skipped: int, j: int, nearer: float) -> float:
    """Return AP@R with j relevant rows in one run, given the sum of nearer buckets.

    In the best order they are first: each further one adds a higher precision than the one before;
    the mean of such a sequence first falls, then rises, so its greatest value is at an end of the
    range of j.
    """
    return (nearer + _run_sum(above, above_r, skipped, j)) / max(1, above_r + j)


@numba.njit(nogil=True, cache=True)
def _worst_retrieved(above: int, above_r: int, m: int, low: int, high: int, nearer: float) -> float:
    """Return the worst AP@R over all j.

    With j relevant rows last in the m positions, their sum W(j) is convex:
    W(j+1) - W(j) = ΔH(N+m-j, j) + (R+1)/(N+m-j) grows with j. So (A + W(j))/(R + j) falls, then
    rises, and bisection finds the first j from which it rises.
    """
    while low < high:
        j = (low + high) // 2
        start = above + m - j
        value = _run_mean(above, above_r, m - j, j, nearer)
        if harmonic_difference(start, j) + (above_r + 1) / start >= value:
            high = j
        else:
            low = j + 1
    return _run_mean(above, above_r, m - low, low, nearer)


@numba.njit(nogil=True, cache=True)
def _expected_retrieved(
    n: int, r: int, above: int, above_r: int, m: int, low: int, high: int, nearer: float
) -> float:
    """Return the expected AP@R: the mean over j ~ Hypergeometric(n, r, m).

    From the mode outwards by the ratio P(j+1)/P(j) = (r-j)(m-j) / ((j+1)(n-r-m+j+1)), as far as
    weights matter: differences of log-gamma would lose digits for large n.
    """
    mode = min(max(int((m + 1.0) * (r + 1.0) / (n + 2.0)), low), high)
    weights = total = 0.0
    for step in (1, -1):
        weight, j = 1.0, mode
        while low <= j <= high and weight > _NEGLIGIBLE:
            if step == 1 or j < mode:
                precisions = nearer + _expected_sum(m, j, above, above_r, m)
                weights += weight
                total += weight * precisions / max(1, above_r + j)
            if step == 1:
                weight *= float(r - j) * float(m - j) / (float(j + 1) * float(n - r - m + j + 1))
            else:
                weight *= float(j) * float(n - r - m + j) / (float(r - j + 1) * float(m - j + 1))
            j += step
    return total / weights


@numba.njit(nogil=True, cache=True)
def relevant_above(
    rows: Array, relevant: Array, ranks: Array, counts: Array, top: int, end: int
) -> None:
    """Write the expected relevant rows at ranks 1..t: of n tied rows the first m hold m·r/n.

    Args:
        rows: int64 [Q,K+1], all rows by distance.
        relevant: int64 [Q,K+1], the relevant ones.
        ranks: int64 [1,P], or [Q,P] for those of each query; ascending, 0 to the number of rows.
        counts: float64 [Q,P], written.
        top: first query.
        end: the one after the last.
    """
    for q in range(top, end):
        query_ranks = ranks[q if len(ranks) > 1 else 0]
        above = above_r = d = 0
        for p in range(len(query_ranks)):
            while above + rows[q, d] < query_ranks[p]:
                above += rows[q, d]
                above_r += relevant[q, d]
                d += 1
            counts[q, p] = above_r
            if query_ranks[p] > above:
                counts[q, p] += (query_ranks[p] - above) * (relevant[q, d] / rows[q, d])


@numba.njit(nogil=True, cache=True)
def add_discounted(
    sizes: Array, gains: Array, before: int, upto: Array, sums: Array, top: int, end: int
) -> None:
    """Add the expected discounted gain of some ranks of a ranking of groups.

    The rows of a group are tied, so every rank of a group has the mean gain of the group.

    Args:
        sizes: int64 [Q,P], rows of consecutive groups.
        gains: float64 [Q,P], summed over the rows of the group.
        before: the ranks ``before``+1 to ``before``+M are added.
        upto: float64 [M+1], sums of the discounts of the first 0..M of these ranks.
        sums: float64 [Q], added to.
        top: first query.
        end: the one after the last.
    """
    most = len(upto) - 1
    for q in range(top, end):
        left = -before
        for p in range(sizes.shape[1]):
            right = left + sizes[q, p]
            if right > 0 and gains[q, p] != 0:
                part = upto[min(right, most)] - upto[min(max(left, 0), most)]
                sums[q] += gains[q, p] / sizes[q, p] * part
            left = right
            if left >= most:
                break
