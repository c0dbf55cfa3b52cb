"""AP of policies over the stable order of Hamming distances, without sorting, compiled by numba.

For one query a first pass over the rows takes distances and relevance and counts both by distance.
The sums up to each distance are the ranks at which its rows begin; a second pass hands every row
its rank, in order of row numbers, and adds the precision at the relevant ones.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from common.metrics.counting.numba_backend import popcount
from common.metrics.packed import PackedRows, planes

Array = Any  # of the types that numba infers
_TASKS_PER_THREAD = 4


def average_precisions(
    query: PackedRows, database: PackedRows, limits: NDArray[np.int64], by_rank: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return AP of every query for M measures, float64 [M,Q]; 0 where no relevant row counts.

    Args:
        query: codes and labels.
        database: the same, of as many bits and classes.
        limits: int64 [M], how many ranks count, or how many relevant rows.
        by_rank: bool [M], which of the two.
    """
    threads = max(1, torch.get_num_threads())
    values = np.zeros((len(limits), len(query)))
    same_class = query.classes is None  # labels are class numbers
    inputs = (
        planes(query.codes, np.uint64), planes(database.codes, np.uint64),
        _label_words(query), _label_words(database), same_class, query.bits, limits, by_rank,
    )  # fmt: skip
    edges = np.linspace(0, len(query), min(len(query), threads * _TASKS_PER_THREAD) + 1, dtype=int)

    def work(top: int, end: int) -> None:
        _walk(*inputs, values, top, end)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, edges[:-1], edges[1:]))
    return values


def _label_words(rows: PackedRows) -> NDArray[np.uint64]:
    """Return labels as words [W,n]: bits of classes, or one word with the class number."""
    if rows.classes is None:
        return rows.labels.astype(np.int64).view(np.uint64)[None]
    return planes(rows.labels.astype(np.uint8), np.uint64)


@numba.njit(nogil=True, cache=True)
def _walk(
    query_words: Array,
    row_words: Array,
    query_labels: Array,
    row_labels: Array,
    same_class: bool,
    bits: int,
    limits: Array,
    by_rank: Array,
    values: Array,
    top: int,
    end: int,
) -> None:
    """Write the AP of queries ``top``..``end`` into ``values`` [M,Q]."""
    n = row_words.shape[1]
    distance, relevant = np.empty(n, np.uint32), np.empty(n, np.uint8)
    rows, hits = np.empty(bits + 1, np.int64), np.empty(bits + 1, np.int64)
    precision, rank, nth = np.empty(n, np.float64), np.empty(n, np.int64), np.empty(n, np.int64)
    for q in range(top, end):
        _distances(query_words, q, row_words, distance)
        _relevance(query_labels, q, row_labels, same_class, relevant)
        _starts(distance, relevant, rows, hits)
        found = 0
        for i in range(n):
            d = distance[i]
            rows[d] += 1
            if relevant[i]:
                hits[d] += 1
                rank[found], nth[found] = rows[d], hits[d]
                precision[found] = hits[d] / rows[d]
                found += 1
        for m in range(len(limits)):
            limit, place = limits[m], rank if by_rank[m] else nth
            total, counted = 0.0, 0
            for j in range(found):
                if place[j] <= limit:
                    total += precision[j]
                    counted += 1
            values[m, q] = total / max(counted, 1)


@numba.njit(nogil=True, cache=True)
def _distances(query_words: Array, q: int, row_words: Array, distance: Array) -> None:
    """Write the Hamming distance of every row."""
    distance[:] = 0
    for w in range(len(row_words)):
        word, rows = query_words[w, q], row_words[w]
        for i in range(len(distance)):
            distance[i] += np.uint32(popcount(word ^ rows[i]))


@numba.njit(nogil=True, cache=True)
def _relevance(
    query_labels: Array, q: int, row_labels: Array, same_class: bool, relevant: Array
) -> None:
    """Write 1 for every row with a label of the query, else 0."""
    relevant[:] = 0
    for w in range(len(row_labels)):
        word, rows = query_labels[w, q], row_labels[w]
        if same_class:
            for i in range(len(relevant)):
                relevant[i] = rows[i] == word
        elif word:
            for i in range(len(relevant)):
                relevant[i] |= (rows[i] & word) != 0


@numba.njit(nogil=True, cache=True)
def _starts(distance: Array, relevant: Array, rows: Array, hits: Array) -> None:
    """Write how many rows, and how many relevant ones, are nearer than each distance."""
    rows[:] = 0
    hits[:] = 0
    for i in range(len(distance)):
        rows[distance[i]] += 1
        hits[distance[i]] += relevant[i]
    before, hits_before = 0, 0
    for d in range(len(rows)):
        before, rows[d] = before + rows[d], before
        hits_before, hits[d] = hits_before + hits[d], hits_before
