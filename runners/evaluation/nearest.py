"""A few queries to look at, and the rows nearest to each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from common.code_files.run_codes import CodeSet
from common.codes import pack_codes


class Hit(NamedTuple):
    """A row that a query found.

    Attributes:
        row: number in the dataset.
        distance: Hamming distance of the codes.
        right: whether it shares a label with the query.
    """

    row: int
    distance: int
    right: bool


def spread(query: CodeSet, count: int) -> list[int]:
    """Return positions of at most ``count`` queries, of as many classes as there are; seeded."""
    order = np.random.RandomState(0).permutation(len(query.rows))
    taken: list[int] = []
    for c in np.random.RandomState(1).permutation(np.flatnonzero(query.labels.any(0))):
        own = (int(q) for q in order if query.labels[q, c] and int(q) not in taken)
        taken += list(own)[:1]
        if len(taken) >= count:
            return taken[:count]
    return (taken + [int(q) for q in order if int(q) not in taken])[:count]


def nearest(
    query: CodeSet, database: CodeSet, positions: Sequence[int], *, asks: str, answers: str,
    top: int,
) -> list[list[Hit]]:  # fmt: skip
    """Return the ``top`` nearest rows of the queries at ``positions``.

    Equally near ones stand in the order of the database.
    """
    packed, found = pack_codes(database.codes[answers]), []
    for q in positions:
        asked = pack_codes(query.codes[asks][q : q + 1])
        distances = np.bitwise_count(packed ^ asked).sum(1, dtype=np.int64)
        first = np.argsort(distances, kind="stable")[:top]
        right = (database.labels[first].astype(np.int64) @ query.labels[q].astype(np.int64)) > 0
        found.append(
            [
                Hit(int(database.rows[i]), int(distances[i]), bool(good))
                for i, good in zip(first, right, strict=True)
            ]
        )
    return found
