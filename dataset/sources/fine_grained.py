"""SHC's protocols A and B of the fine-grained datasets, as far as they can be known.

SHC has lists called "new-seg" and "official-seg" and datasets called A and B; it releases neither
the lists nor which is which. Here B is the official halves, training rows being the database, and A
a seeded draw with as many rows of each class. SHC's curves show about forty relevant rows per query
on both, which agrees; that they are far higher on A than on B, a draw of equal sizes does not
explain. Whoever has the lists takes ``lists``.
"""

from __future__ import annotations

import numpy as np

from dataset.preparation import rules
from dataset.preparation.protocol import ListFiles, Protocol, Selection
from dataset.splits import SplitConfig, SplitManifest, make_split

_NOTE = "which of SHC's splits is called {} is our reading; its lists are not released"


def protocols(rows: int, classes: int, train: int) -> tuple[Protocol, ...]:
    """Return A, B and ``lists``; ``train`` of the ``rows`` are the official training rows."""
    figures = {
        "rows": rows, "classes": classes, "train": train, "query": rows - train, "database": train
    }  # fmt: skip
    halves = rules.by_subsets(train="train", query="test", database="train")
    return (
        Protocol(
            "A", "SHC", like_official, 0, published=figures,
            note=f"a draw as large as the official halves: {_NOTE.format('A')}",
        ),
        Protocol(
            "B", "SHC", halves, published=figures,
            note=f"the official halves: {_NOTE.format('B')}",
        ),
        Protocol(
            "lists", "SHC, by list files of path and labels", rules.by_lists,
            lists=ListFiles("train.txt", "test.txt", "database.txt"),
            published={"classes": classes},
        ),
    )  # fmt: skip


def like_official(selection: Selection, protocol: Protocol) -> SplitManifest:
    """Of each class as many random training rows as the official half has; the rest are queries.

    With numbers given, so many random queries and training rows of each class.
    """
    if protocol.query is not None or protocol.train is not None:
        numbers = SplitConfig("per_class", protocol.seed, protocol.query, protocol.train)
        return make_split(numbers, selection.labels)
    official = selection.subset("train")
    order = np.random.RandomState(protocol.seed).permutation(len(selection))
    train = np.zeros(len(selection), bool)
    for c in range(selection.labels.shape[1]):
        own = selection.labels[:, c] > 0
        train[order[own[order]][: int((own & official).sum())]] = True
    rows = np.flatnonzero(train)
    rule = f"per class as many rows as the official half, seed {protocol.seed}"
    return SplitManifest(rows, np.flatnonzero(~train), rows, rule=rule)
