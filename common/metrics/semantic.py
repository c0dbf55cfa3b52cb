"""NDCG with the similarity of classes as gain.

mAP counts a row as relevant or not. Where single labels come with a similarity of classes, the gain
of a row is the similarity of its class to the query's. Rows at equal distance have the mean gain of
their bucket, which is the expectation over all orders, as everywhere in this package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.metrics.counting.dispatch import count_histograms
from common.metrics.curves import normalised_gain
from common.metrics.packed import PackedRows
from utils.errors import UserError


def semantic_ndcg(
    query: PackedRows,
    database: PackedRows,
    similarity: Any,
    at: int | None = None,
    *,
    memory_mb: float = 256,
) -> Tensor:
    """Return NDCG@R with the similarity of two classes as gain, expected over ties.

    DCG@R = Σ_{t ≤ R} S[class of the query, class of the row at rank t]/log2(1 + t), divided by that
    of the best order.

    Args:
        query: Q rows with class numbers, or with exactly one of C labels each.
        database: N rows, likewise.
        similarity: [C,C] of numbers ≥ 0, row of the query's class.
        at: the cut R ≥ 1; None or more than the database means no cut.
        memory_mb: bound on temporary memory while counting, in MiB.

    Returns:
        float64 [Q]; 0 for a query whose class has similarity 0 to all of the database.

    Raises:
        UserError: rows with several labels or none, or a similarity that is not [C,C] of finite
            numbers ≥ 0.

    >>> from common.metrics import pack_rows
    >>> rows = pack_rows([[1, 1], [1, -1], [-1, -1]], [0, 1, 2])
    >>> alike = [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]
    >>> [round(v, 3) for v in semantic_ndcg(rows, rows, alike).tolist()]
    [1.0, 0.975, 1.0]
    """
    if at is not None and at < 1:
        raise UserError(f"NDCG@R needs a cut R of at least 1, but got {at}.")
    return _ndcg_by_cut(query, database, similarity, [at], memory_mb)[0]


def semantic_means(
    query: PackedRows,
    database: PackedRows,
    similarity: Any,
    cuts: Mapping[str, int | None],
    *,
    memory_mb: float = 256,
) -> dict[str, float]:
    """Return the mean over queries of :func:`semantic_ndcg` for each cut, from one count."""
    by_cut = _ndcg_by_cut(query, database, similarity, cuts.values(), memory_mb)
    return {key: float(ndcg.mean()) for key, ndcg in zip(cuts, by_cut, strict=True)}


def _ndcg_by_cut(
    query: PackedRows,
    database: PackedRows,
    similarity: Any,
    cuts: Iterable[int | None],
    memory_mb: float,
) -> list[Tensor]:
    """Return NDCG at each cut, float64 [Q]; in the best order the similarity of classes falls."""
    query_classes = _class_numbers(query, "query")
    row_classes = _class_numbers(database, "database")
    least = int(max(query_classes.max(), row_classes.max())) + 1
    gains = _checked(similarity, least)[query_classes]  # [Q,C]
    classes, size = np.unique(row_classes, return_counts=True)
    per_bucket = torch.zeros(len(query), query.bits + 1, dtype=torch.float64)
    sizes = torch.zeros(len(query), query.bits + 1, dtype=torch.int64)
    for c in classes:
        part = database.select(row_classes == c)
        rows = count_histograms(query, part, memory_mb=memory_mb).rows  # [Q,K+1]
        sizes += rows
        per_bucket += rows * gains[:, c, None]
    best_gains, order = gains[:, classes].sort(1, descending=True)
    best_sizes = torch.from_numpy(size)[order]
    best = best_sizes, best_sizes * best_gains
    return [normalised_gain(sizes, per_bucket, *best, cut) for cut in cuts]


def _class_numbers(rows: PackedRows, side: str) -> np.ndarray:
    """Return the class of each row, int64 [n].

    Raises:
        UserError: a row with several labels or with none.
    """
    if rows.classes is None:
        return rows.labels.astype(np.int64)
    ones = np.unpackbits(rows.labels.astype(np.uint8), 1, rows.classes, "little")
    wrong = np.flatnonzero(ones.sum(1) != 1)
    if len(wrong):
        raise UserError(
            f"Row {wrong[0]} of the {side} has {ones[wrong[0]].sum()} labels; NDCG by the "
            "similarity of classes needs exactly one for each row."
        )
    return np.asarray(ones.argmax(1), np.int64)


def _checked(similarity: Any, least: int) -> Tensor:
    try:
        values = torch.from_numpy(np.array(similarity, dtype=np.float64))  # files are mapped
    except (TypeError, ValueError) as error:
        raise UserError("The similarity of classes is no array of numbers.") from error
    shape = list(values.shape)
    if values.ndim != 2 or shape[0] != shape[1] or shape[0] < least:
        raise UserError(
            f"The similarity of classes has shape {shape}; [C,C] for C = {least} or more is needed."
        )
    if not bool(((values >= 0) & values.isfinite()).all()):
        raise UserError("The similarity of classes has values that are not finite or below 0.")
    return values
