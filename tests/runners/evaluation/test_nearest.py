"""The rows nearest to a query, against a sort of ours, and which queries are shown."""

from __future__ import annotations

import numpy as np

from common.code_files.run_codes import CodeSet
from runners.evaluation.nearest import nearest, spread


def codes(rows: int, seed: int, first: int = 0) -> CodeSet:
    rng = np.random.default_rng(seed)
    values = {m: rng.choice(np.array([-1, 1], np.int8), (rows, 5)) for m in ("image", "text")}
    labels = np.eye(4, dtype=np.uint8)[rng.integers(0, 4, rows)]
    return CodeSet(values, labels, first + rng.permutation(rows))


def test_the_nearest_come_first_and_equal_distances_in_the_order_of_the_database():
    query, database = codes(6, 0, 500), codes(40, 1)
    positions = [4, 0, 5]
    found = nearest(query, database, positions, direction="t2i", top=9)
    for q, hits in zip(positions, found, strict=True):
        distance = (database.codes["image"] != query.codes["text"][q]).sum(1)
        order = sorted(range(40), key=lambda i: (distance[i], i))[:9]
        assert [hit.row for hit in hits] == database.rows[order].tolist()
        assert [hit.distance for hit in hits] == distance[order].tolist()
        shared = [bool(database.labels[i] @ query.labels[q]) for i in order]
        assert [hit.right for hit in hits] == shared
    assert len({hit.distance for hit in found[0]}) < 9, "the toy should have ties"


def test_more_than_there_are_is_all():
    query, database = codes(2, 0), codes(3, 1)
    assert len(nearest(query, database, [1], direction="i2i", top=10)[0]) == 3


def test_shown_queries_are_of_as_many_classes_as_possible():
    labels = np.eye(4, dtype=np.uint8)[[0] * 50 + [1, 2, 3]]
    query = CodeSet({"image": np.ones((53, 5), np.int8)}, labels, np.arange(53))
    chosen = spread(query, 4)
    assert sorted(labels[chosen].argmax(1)) == [0, 1, 2, 3]
    assert spread(query, 4) == chosen and len(set(spread(query, 60))) == 53
