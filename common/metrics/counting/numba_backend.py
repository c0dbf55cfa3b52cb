"""Counting on the CPU by exclusive-or and population count, compiled by numba, on all cores.

For one query, a tile of rows becomes keys (K+1)·grade + distance in loops that the compiler turns
into vector instructions; then each key adds one to a counter. The counter is the bottleneck: an
addition in memory takes about a cycle, however fast the keys are computed. So two rows share one:
the keys a and b of a row in the first and one in the second half of the block address a table of
pairs (a,b), whose margins are summed once per query. Grades depend on the query's labels alone, so
queries are sorted by their labels, and neighbours with equal labels share the grades.

Threads are Python's; the compiled code releases the interpreter's lock. Numba's own thread pools
are not used, because they and a later ``fork`` interfere.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numba.extending import intrinsic
from numpy.typing import NDArray

from common.metrics.packed import PackedRows, planes

Array = Any  # of the types that numba infers

_TILE = 8_192  # rows whose keys fit the first-level cache
_QUERIES = 8  # over a tile before the next one
_TABLE_ENTRIES = 2**18  # of all their tables, 1 MiB
_MOST_PAIR_KEYS = 512  # a table of pairs of more keys leaves the second-level cache
_TASKS_PER_THREAD = 4
_SHARE, _COUNT = 0, 1  # how labels become grades: whether there is one in common, or how many


def count(
    query: PackedRows,
    database: PackedRows,
    levels: int,
    counts: NDArray[np.int64],
    *,
    memory_mb: float,
) -> None:
    """Add to ``counts`` the pairs by distance and grade; all arguments fit together.

    The arguments are those of :func:`common.metrics.counting.torch_backend.count`, where with more
    than two ``levels`` no query has as many labels. Beside ``memory_mb`` each thread keeps two
    tiles and its counters.
    """
    threads = max(1, torch.get_num_threads())
    word = np.uint32 if query.bits <= 32 else np.uint64
    order, group = _by_labels(query)
    query_words = np.ascontiguousarray(planes(query.codes, word)[:, order])
    labels = _QueryLabels.of(query, order)
    how = _COUNT if levels > 2 else _SHARE
    per_row = 2 * (database.codes.shape[1] + 7) + len(labels.used)  # words while packing, and marks
    step = max(_TILE, min(len(database), int(memory_mb * 2**20) // per_row))
    keys = (query.bits + 1) * levels
    shift_type = np.zeros(0, np.uint16 if keys < 2**16 else np.uint32)  # numba sees arrays' types
    sorted_counts = np.zeros((len(query), keys), np.int64)  # by labels; by grade and distance
    edges = np.linspace(0, len(query), min(len(query), threads * _TASKS_PER_THREAD) + 1, dtype=int)
    with ThreadPoolExecutor(threads) as pool:
        for left in range(0, len(database), step):
            rows = database.select(slice(left, left + step))
            work = functools.partial(
                _count_queries, query_words, labels.starts, labels.numbers, group,
                planes(rows.codes, word), labels.marks(rows),
                how, query.bits + 1, keys, shift_type, sorted_counts,
            )  # fmt: skip
            list(pool.map(work, edges[:-1], edges[1:]))
    by_distance = sorted_counts.reshape(len(query), levels, query.bits + 1).transpose(0, 2, 1)
    counts[order] += by_distance.reshape(len(query), keys)


def _by_labels(query: PackedRows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the order of queries by their labels, and the number of the label set, in it."""
    labels: Array = query.labels
    if query.classes is not None:
        labels = np.ascontiguousarray(labels).view(np.dtype((np.void, labels.shape[1])))[:, 0]
    _, group = np.unique(labels, return_inverse=True)
    order = np.argsort(group, kind="stable")
    return order, group[order]


class _QueryLabels(NamedTuple):
    """The labels of the queries, as positions among the labels that any query has.

    Attributes:
        used: int64 [U], the labels (or class numbers) that occur, ascending.
        numbers: int64, positions in ``used``, those of query 0, then of query 1, …
        starts: int64 [Q+1], position of the first of each query.
    """

    used: NDArray[Any]
    numbers: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, query: PackedRows, order: NDArray[np.int64]) -> _QueryLabels:
        labels = query.labels[order]
        if query.classes is None:
            used, numbers = np.unique(labels, return_inverse=True)
            return cls(used, numbers, np.arange(len(labels) + 1))
        ones = np.unpackbits(labels.astype(np.uint8), 1, query.classes, "little")
        rows, values = ones.nonzero()
        used, numbers = np.unique(values, return_inverse=True)
        return cls(used, numbers, np.searchsorted(rows, np.arange(len(labels) + 1)))

    def marks(self, rows: PackedRows) -> NDArray[np.uint8]:
        """Return 1 where a row has a label of ``used``, else 0: uint8 [U,n]."""
        marks = np.empty((len(self.used), len(rows)), np.uint8)
        if rows.classes is None:
            for mark, number in zip(marks, self.used, strict=True):
                np.equal(rows.labels, number, out=mark.view(np.bool_))
        else:
            _unpack_marks(np.ascontiguousarray(rows.labels), self.used, marks)
        return marks


def _popcount_of(context: Any, word: Any) -> Any:
    """Return the number of ones in an unsigned word by the processor's instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return word(word), generate


popcount: Any = intrinsic(_popcount_of)


@numba.njit(nogil=True, cache=True)
def _count_queries(
    query_words: Array,
    starts: Array,
    numbers: Array,
    group: Array,
    row_words: Array,
    marks: Array,
    how: int,
    distances: int,
    keys: int,
    shift_type: Array,
    counts: Array,
    top: int,
    end: int,
) -> None:
    """Count for queries ``top``..``end``: one table of (pairs of) keys for each query.

    A few queries go over a tile of rows before the next tile, so that the rows come from the
    second-level cache; queries with the same labels share the shifts of a tile.
    """
    n_rows = row_words.shape[1]
    half = n_rows // 2
    in_pairs = keys <= _MOST_PAIR_KEYS and keys * keys <= n_rows
    size = keys * keys if in_pairs else 2 * keys
    tables = np.zeros((max(1, min(_QUERIES, _TABLE_ENTRIES // size)), size), np.uint32)
    first, second = np.empty(_TILE, np.uint32), np.empty(_TILE, np.uint32)
    s, t = np.empty(_TILE, shift_type.dtype), np.empty(_TILE, shift_type.dtype)
    for base in range(top, end, len(tables)):
        stop = min(base + len(tables), end)
        for left in range(0, half, _TILE):
            n = min(_TILE, half - left)
            right = half + left
            for q in range(base, stop):
                table = tables[q - base]
                query_labels = numbers[starts[q] : starts[q + 1]]
                if q == base or group[q] != group[q - 1]:
                    _make_shifts(query_labels, marks, left, how, distances, s[:n])
                    _make_shifts(query_labels, marks, right, how, distances, t[:n])
                if in_pairs:
                    _make_pairs(
                        query_words, q, row_words, left, right, s, t, keys, first[:n], second
                    )
                    for j in range(n):
                        table[first[j]] += np.uint32(1)
                else:
                    _make_keys(query_words, q, row_words, left, s, first[:n])
                    _make_keys(query_words, q, row_words, right, t, second[:n])
                    for j in range(n):
                        table[first[j]] += np.uint32(1)
                        table[keys + second[j]] += np.uint32(1)  # another table: no wait
        for q in range(base, stop):
            if n_rows % 2:
                query_labels = numbers[starts[q] : starts[q + 1]]
                _make_shifts(query_labels, marks, n_rows - 1, how, distances, s[:1])
                _make_keys(query_words, q, row_words, n_rows - 1, s, first[:1])
                counts[q, first[0]] += 1
            _add_up(tables[q - base], keys, second[:keys] if in_pairs else first, counts[q])


@numba.njit(nogil=True, cache=True)
def _unpack_marks(packed: Array, used: Array, marks: Array) -> None:
    """Write bit ``used[u]`` of the packed labels [n,B] into row ``u`` of ``marks``."""
    for u in range(len(used)):
        byte, bit = used[u] // 8, used[u] % 8
        mark = marks[u]
        for j in range(len(mark)):
            mark[j] = (packed[j, byte] >> bit) & 1


@numba.njit(nogil=True, cache=True)
def _make_shifts(
    query_labels: Array, marks: Array, left: int, how: int, distances: int, shift: Array
) -> None:
    """Write (K+1)·grade of the rows from ``left`` on for a query with ``query_labels``."""
    n = len(shift)
    shift[:] = 0
    for u in query_labels:
        mark = marks[u, left : left + n]
        if how == _SHARE:
            for j in range(n):
                shift[j] |= mark[j]
        else:
            for j in range(n):
                shift[j] += mark[j]
    for j in range(n):
        shift[j] *= distances


@numba.njit(nogil=True, cache=True)
def _make_keys(
    query_words: Array, q: int, row_words: Array, left: int, s: Array, key: Array
) -> None:
    """Write the keys of the rows from ``left`` on, shifts ``s``, until ``key`` is full."""
    n = len(key)
    m0, a0 = query_words[0, q], row_words[0, left : left + n]
    if len(row_words) == 1:
        for j in range(n):
            key[j] = np.uint32(popcount(m0 ^ a0[j])) + np.uint32(s[j])
        return
    m1, a1 = query_words[1, q], row_words[1, left : left + n]
    for j in range(n):
        key[j] = np.uint32(popcount(m0 ^ a0[j]) + popcount(m1 ^ a1[j])) + np.uint32(s[j])
    for w in range(2, len(row_words)):
        word, rows = query_words[w, q], row_words[w, left : left + n]
        for j in range(n):
            key[j] += np.uint32(popcount(word ^ rows[j]))


@numba.njit(nogil=True, cache=True)
def _make_pairs(
    query_words: Array,
    q: int,
    row_words: Array,
    left: int,
    right: int,
    s: Array,
    t: Array,
    keys: int,
    pair: Array,
    spare: Array,
) -> None:
    """Write a·keys + b for keys a of the rows from ``left`` on and b of those from ``right`` on.

    Codes of one and of two words have separate loops that store nothing but the result.
    """
    n, scale = len(pair), np.uint32(keys)
    m0 = query_words[0, q]
    a0, b0 = row_words[0, left : left + n], row_words[0, right : right + n]
    if len(row_words) == 1:
        for j in range(n):
            a = np.uint32(popcount(m0 ^ a0[j])) + np.uint32(s[j])
            pair[j] = a * scale + np.uint32(popcount(m0 ^ b0[j])) + np.uint32(t[j])
        return
    if len(row_words) == 2:
        m1 = query_words[1, q]
        a1, b1 = row_words[1, left : left + n], row_words[1, right : right + n]
        for j in range(n):
            a = np.uint32(popcount(m0 ^ a0[j]) + popcount(m1 ^ a1[j])) + np.uint32(s[j])
            b = np.uint32(popcount(m0 ^ b0[j]) + popcount(m1 ^ b1[j])) + np.uint32(t[j])
            pair[j] = a * scale + b
        return
    _make_keys(query_words, q, row_words, left, s, pair)
    _make_keys(query_words, q, row_words, right, t, spare[:n])
    for j in range(n):
        pair[j] = pair[j] * scale + spare[j]


@numba.njit(nogil=True, cache=True)
def _add_up(table: Array, keys: int, columns: Array, counts: Array) -> None:
    """Add a query's table to its counts and clear it.

    A table of pairs gives both of its margins, one summed in ``columns``; a table of size 2·keys is
    two tables of keys.
    """
    if len(table) == 2 * keys:
        for a in range(keys):
            counts[a] += table[a] + table[keys + a]
        table[:] = 0
        return
    columns[:] = 0
    for a in range(keys):
        row = table[a * keys : (a + 1) * keys]
        total = np.uint32(0)
        for b in range(keys):
            columns[b] += row[b]
            total += row[b]
            row[b] = 0
        counts[a] += total
    for b in range(keys):
        counts[b] += columns[b]
