"""A few queries to show, and the rows nearest to each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from common.code_files.run_codes import CodeSet
from common.codes import pack_codes
from common.directions import sides


class Hit(NamedTuple):
    """A retrieved row of the dataset, its Hamming distance, and whether it shares a label."""

    row: int
    distance: int
    right: bool


def spread(query: CodeSet, count: int) -> list[int]:
    """Return positions of at most ``count`` queries, of as many classes as possible; seeded."""
    order = np.random.RandomState(0).permutation(len(query.rows))
    chosen: list[int] = []
    for c in np.random.RandomState(1).permutation(np.flatnonzero(query.labels.any(0))):
        of_class = (int(q) for q in order if query.labels[q, c] and int(q) not in chosen)
        chosen += list(of_class)[:1]
        if len(chosen) >= count:
            return chosen[:count]
    return (chosen + [int(q) for q in order if int(q) not in chosen])[:count]


def nearest(
    query: CodeSet, database: CodeSet, positions: Sequence[int], *, direction: str, top: int
) -> list[list[Hit]]:
    """Return the ``top`` nearest rows of the queries at ``positions``.

    Rows at the same distance stand in the order of the database.
    """
    of_query, of_database = sides(direction)
    packed, hits = pack_codes(database.codes[of_database]), []
    for q in positions:
        code = pack_codes(query.codes[of_query][q : q + 1])
        distances = np.bitwise_count(packed ^ code).sum(1, dtype=np.int64)
        first = np.argsort(distances, kind="stable")[:top]
        right = (database.labels[first].astype(np.int64) @ query.labels[q].astype(np.int64)) > 0
        hits.append(
            [
                Hit(int(database.rows[i]), int(distances[i]), bool(relevant))
                for i, relevant in zip(first, right, strict=True)
            ]
        )
    return hits
