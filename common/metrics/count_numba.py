"""Counting on the CPU by exclusive-or and population count, compiled by numba, on all cores.

For one query, a tile of rows is turned into keys G·d + grade by loops that the compiler makes into
vector instructions; then each key adds one to a counter. The counter is what bounds it: an addition
in memory takes about a cycle, however fast the keys come. So two rows share one: the keys a and b
of a row in the first and one in the second half of the block address a table of pairs (a,b), whose
margins are summed once per query. Grades depend on the query's labels alone, so queries are taken
in the order of their labels, and the grades of a block are made once for each set of labels.

Threads are Python's, each in compiled code without the interpreter's lock, so that neither numba's
thread pools nor a later ``fork`` can get in each other's way.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from numba.extending import intrinsic
from numpy.typing import NDArray

from common.metrics.packed import PackedRows, planes

Array = Any  # of the types that numba infers

_TILE = 8_192  # rows whose keys fit the first-level cache
_MOST_PAIR_KEYS = 512  # a table of pairs of more keys leaves the second-level cache
_TASKS_PER_THREAD = 4
_EQUAL, _SHARE, _COUNT = 0, 1, 2  # how labels become grades


def count(
    query: PackedRows,
    database: PackedRows,
    levels: int,
    counts: NDArray[np.int64],
    *,
    memory_mb: float,
) -> None:
    """Add to ``counts`` the pairs by distance and grade; all arguments fit together.

    Args:
        query: Q rows.
        database: N rows.
        levels: number of grades G; for multi-hot labels above 2 the grade is the number of shared
            labels, otherwise whether there is one.
        counts: int64 [Q,(K+1)·G], changed in place.
        memory_mb: bound on temporary memory in MiB; beside it each thread keeps two tiles and its
            counters.
    """
    threads = max(1, torch.get_num_threads())
    word = np.uint32 if query.bits <= 32 else np.uint64
    order, group = _by_labels(query)
    query_words = np.ascontiguousarray(planes(query.codes, word)[:, order])
    query_labels = np.ascontiguousarray(_label_planes(query)[:, order])
    how = _EQUAL if query.classes is None else _COUNT if levels > 2 else _SHARE
    step = _rows_at_once(database, threads, int(memory_mb * 2**20))
    found = np.zeros_like(counts)  # in the order of labels
    edges = np.linspace(0, len(query), min(len(query), threads * _TASKS_PER_THREAD) + 1, dtype=int)
    with ThreadPoolExecutor(threads) as pool:
        for left in range(0, len(database), step):
            rows = database.select(slice(left, left + step))
            row_words, row_labels = planes(rows.codes, word), _label_planes(rows)

            def work(
                top: int, end: int, row_words: Array = row_words, row_labels: Array = row_labels
            ) -> None:
                grade = np.empty(row_words.shape[1], np.uint8 if levels <= 256 else np.uint16)
                _count_queries(
                    query_words, query_labels, group, row_words, row_labels,
                    how, (query.bits + 1) * levels, levels, grade, found, top, end,
                )  # fmt: skip

            list(pool.map(work, edges[:-1], edges[1:]))
    counts[order] += found


def _by_labels(query: PackedRows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the order of queries by their labels, and the number of the label set, in it."""
    labels: Array = query.labels
    if query.classes is not None:
        labels = np.ascontiguousarray(labels).view(np.dtype((np.void, labels.shape[1])))[:, 0]
    _, group = np.unique(labels, return_inverse=True)
    order = np.argsort(group, kind="stable")
    return order, group[order]


def _label_planes(rows: PackedRows) -> NDArray[np.uint32]:
    """Return labels as words, one plane for each, uint32 [L,n]; class numbers as their digits."""
    if rows.classes is not None:
        return planes(rows.labels.astype(np.uint8, copy=False), np.uint32)
    digits = planes(
        np.ascontiguousarray(rows.labels, "<i8").view(np.uint8).reshape(-1, 8), np.uint32
    )
    return digits


def _rows_at_once(database: PackedRows, threads: int, budget: int) -> int:
    """Return how many rows to treat at once: their words and labels twice, a grade per thread."""
    labels = 8 if database.classes is None else database.labels.shape[1] + 3
    per_row = 2 * (database.codes.shape[1] + 7 + labels) + threads
    return max(_TILE, min(len(database), budget // per_row))


def _popcount_of(context: Any, word: Any) -> Any:
    """Return the number of ones in an unsigned word, the processor's own instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return word(word), generate


_popcount: Any = intrinsic(_popcount_of)


@numba.njit(nogil=True, cache=True)
def _count_queries(
    query_words: Array,
    query_labels: Array,
    group: Array,
    row_words: Array,
    row_labels: Array,
    how: int,
    keys: int,
    levels: int,
    grade: Array,
    found: Array,
    top: int,
    end: int,
) -> None:
    """Count for queries ``top``..``end``: one table of (pairs of) keys for each query."""
    n_rows = row_words.shape[1]
    half = n_rows // 2
    in_pairs = keys <= _MOST_PAIR_KEYS and keys * keys <= n_rows
    table = np.zeros(keys * keys if in_pairs else 2 * keys, np.uint32)
    near = np.empty(_TILE, np.uint32)
    far = np.empty(_TILE, np.uint32)
    for q in range(top, end):
        if q == top or group[q] != group[q - 1]:
            _make_grades(query_labels, q, row_labels, how, grade)
        table[:] = 0
        for left in range(0, half, _TILE):
            n = min(_TILE, half - left)
            _make_keys(query_words, q, row_words, left, grade, levels, near[:n])
            _make_keys(query_words, q, row_words, half + left, grade, levels, far[:n])
            if in_pairs:
                for j in range(n):
                    near[j] = near[j] * np.uint32(keys) + far[j]
                for j in range(n):
                    table[near[j]] += np.uint32(1)
            else:
                for j in range(n):
                    table[near[j]] += np.uint32(1)
                    table[keys + far[j]] += np.uint32(1)  # a table of its own: no waiting
        if n_rows % 2:
            _make_keys(query_words, q, row_words, n_rows - 1, grade, levels, near[:1])
            found[q, near[0]] += 1
        _add_up(table, keys, in_pairs, found[q])


@numba.njit(nogil=True, cache=True)
def _make_grades(query_labels: Array, q: int, row_labels: Array, how: int, grade: Array) -> None:
    """Write the grade of every row for the labels of query ``q``."""
    for w in range(len(row_labels)):
        mine = query_labels[w, q]
        rows = row_labels[w]
        if how == _EQUAL:
            for j in range(len(rows)):
                grade[j] = np.uint8(mine == rows[j]) & (grade[j] if w else np.uint8(1))
        elif how == _SHARE:
            for j in range(len(rows)):
                grade[j] = np.uint8((mine & rows[j]) != 0) | (grade[j] if w else np.uint8(0))
        else:
            for j in range(len(rows)):
                grade[j] = _popcount(mine & rows[j]) + (grade[j] if w else np.uint8(0))


@numba.njit(nogil=True, cache=True)
def _make_keys(
    query_words: Array, q: int, row_words: Array, left: int, grade: Array, levels: int, key: Array
) -> None:
    """Write G·d + grade of the rows from ``left`` on, as many as ``key`` has places."""
    n = len(key)
    first = query_words[0, q]
    a = row_words[0, left : left + n]
    g = grade[left : left + n]
    scale = np.uint32(levels)
    if len(row_words) == 1:
        for j in range(n):
            key[j] = np.uint32(_popcount(first ^ a[j])) * scale + g[j]
        return
    second = query_words[1, q]
    b = row_words[1, left : left + n]
    for j in range(n):
        key[j] = np.uint32(_popcount(first ^ a[j]) + _popcount(second ^ b[j]))
    for w in range(2, len(row_words)):
        other = query_words[w, q]
        c = row_words[w, left : left + n]
        for j in range(n):
            key[j] += np.uint32(_popcount(other ^ c[j]))
    for j in range(n):
        key[j] = key[j] * scale + g[j]


@numba.njit(nogil=True, cache=True)
def _add_up(table: Array, keys: int, in_pairs: bool, found: Array) -> None:
    """Add a query's table to its counts: both margins of a table of pairs, or two tables."""
    if not in_pairs:
        for a in range(keys):
            found[a] += table[a] + table[keys + a]
        return
    for a in range(keys):
        total = np.int64(0)
        for b in range(keys):
            pairs = np.int64(table[a * keys + b])
            total += pairs
            found[b] += pairs
        found[a] += total
