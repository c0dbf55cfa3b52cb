"""Curves of other repositories, by name, to compare with their published figures.

The project's curves are those of :mod:`common.metrics.curves`. As for the mAPs of
:mod:`common.metrics.compat.policies`, codes are ranked explicitly, ties by row number or by
``order``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.codes import as_codes
from common.metrics.compat.rankings import RankedPairs, check_pairs
from common.metrics.curves import Curve, curve_by_radius
from common.metrics.histograms import ratio
from common.metrics.inputs import build_histograms
from utils.errors import UserError

_TOPN_STEP = 0.02


def deephash_curve(
    query_codes: Any,
    query_labels: Any,
    database_codes: Any,
    database_labels: Any,
    *,
    order: Any = None,
) -> Curve:
    """Return the curves of DeepHash-pytorch's ``CalcTopMapWithPR`` over the whole ranking.

    Means of precision@t and recall@t, t = 1..N, over the queries *with* a relevant row; its mAP
    counts the others as 0. NaN if there is no such query.

    Arguments and errors are those of :func:`common.metrics.compat.policies.compat_map`; float64 [N]
    each.
    """
    pairs = check_pairs(query_codes, query_labels, database_codes, database_labels)
    mean = _mean_at(pairs, torch.arange(1, len(pairs.database) + 1), order)
    with_relevant = mean.recall[-1]  # their share of the queries: recall at N is 1 with, 0 without
    return Curve(mean.precision / with_relevant, mean.recall / with_relevant)


def deephash_precision_recall(
    query_codes: Any,
    query_labels: Any,
    database_codes: Any,
    database_labels: Any,
    ranks: Sequence[int],
    *,
    order: Any = None,
) -> Curve:
    """Return the curves of DeepHash-pytorch's ``pr_curve`` and PZSH's first release.

    Means of precision@t and recall@t, t in ``ranks``, over *all* queries; one without a relevant
    row adds 0.

    The other arguments and errors are those of :func:`common.metrics.compat.policies.compat_map`;
    float64 [P] each, P ranks.

    Raises:
        UserError: a rank outside 1..N.
    """
    pairs = check_pairs(query_codes, query_labels, database_codes, database_labels)
    rows = len(pairs.database)
    wrong = [rank for rank in ranks if not 1 <= rank <= rows]
    if wrong:
        raise UserError(f"Rank {wrong[0]} is outside of 1..{rows}, the rows of the database.")
    return _mean_at(pairs, torch.tensor(list(ranks), dtype=torch.int64), order)


def dchmt_topn_precision(
    query_codes: Any,
    query_labels: Any,
    database_codes: Any,
    database_labels: Any,
    *,
    order: Any = None,
) -> Tensor:
    """Return DCHMT's top-n precision: its mean over queries at 2 %, 4 %, …, 100 % of the database.

    Point i takes the first floor(N·(0.02 + 0.02·i)) rows. The floor sees the rounding of that
    product: of 60 rows, point 9 (20 %) takes 11.

    Arguments and errors are those of :func:`common.metrics.compat.policies.compat_map`, except that
    codes are read by :func:`common.codes.as_codes`: DCHMT's curves have 0/1. float64 [50].

    Raises:
        UserError: fewer than 50 database rows, where the first point would hold no row.
    """
    pairs = check_pairs(
        as_codes(query_codes), query_labels, as_codes(database_codes), database_labels
    )
    shares = _TOPN_STEP + _TOPN_STEP * np.arange(round(1 / _TOPN_STEP))
    chosen = torch.from_numpy((len(pairs.database) * shares).astype(np.int64))
    if chosen[0] < 1:
        raise UserError(
            f"Top-n precision at 2 % of {len(pairs.database)} database rows has no row to look at; "
            "it needs at least 50."
        )
    return _mean_at(pairs, chosen, order).precision


def dchmt_curve_by_radius(
    query_codes: Any, query_labels: Any, database_codes: Any, database_labels: Any
) -> Curve:
    """Return DCHMT's precision and "recall" within radius 0..D, D the largest distance that occurs.

    Precision is pooled over all pairs. What the released code calls recall is the number of pairs
    *retrieved*, relevant or not, over the number of relevant pairs: it may exceed 1. For recall,
    see :func:`common.metrics.curve_by_radius`.

    Arguments are those of :func:`common.metrics.build_histograms`; float64 [D+1] each.

    Raises:
        UserError: inputs that do not fit, or no relevant pair.
    """
    histograms = build_histograms(query_codes, query_labels, database_codes, database_labels)
    relevant = int(histograms.total_relevant.sum())
    if relevant == 0:
        raise UserError("No query shares a label with any database row; recall has no meaning.")
    retrieved = histograms.rows.sum(0)
    end = int(retrieved.nonzero().max()) + 1
    precision = curve_by_radius(histograms, "micro").precision[:end]
    return Curve(precision, retrieved.cumsum(0)[:end].double() / relevant)


def dchmt_precision_within(
    query_codes: Any,
    query_labels: Any,
    database_codes: Any,
    database_labels: Any,
    *,
    order: Any = None,
) -> Tensor:
    """Return DCHMT's mean precision within radius 1..K, as released.

    A query with *exactly one* row within the radius counts as having two, and its two nearest rows
    are judged, so that ties matter: recorded numbers show it, and it is the effect of counting
    squeezed positions in a [1,N] matrix, where each position is a pair. Empty radii count 0.
    For the plain number, see :func:`common.metrics.precision_within`.

    Arguments and errors are those of :func:`dchmt_topn_precision`; float64 [K], radius i + 1 at i.
    """
    codes = as_codes(query_codes), as_codes(database_codes)
    histograms = build_histograms(codes[0], query_labels, codes[1], database_labels)
    within = histograms.rows.cumsum(1)[:, 1:]  # [Q,K]
    precision = ratio(histograms.relevant.cumsum(1)[:, 1:], within)
    pairs = check_pairs(codes[0], query_labels, codes[1], database_labels)
    nearest_two = [
        relevant.gather(1, ranked[:, :2]).sum(1) for ranked, relevant in pairs.ranked(order)
    ]
    return torch.where(within == 1, torch.cat(nearest_two)[:, None] / 2, precision).mean(0)


def _mean_at(pairs: RankedPairs, ranks: Tensor, order: Any) -> Curve:
    """Return the means over all queries of precision and recall at ``ranks``, float64 [P]."""
    precision = torch.zeros(len(ranks), dtype=torch.float64)
    recall = torch.zeros_like(precision)
    for ranked, relevant in pairs.ranked(order):
        hits = relevant.gather(1, ranked).cumsum(1)  # [q,N]
        precision += (hits[:, ranks - 1] / ranks.double()).sum(0)
        recall += ratio(hits[:, ranks - 1], hits[:, -1:]).sum(0)
    return Curve(precision / len(pairs.query), recall / len(pairs.query))
