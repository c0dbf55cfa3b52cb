"""SHC's protocols A and B of the fine-grained datasets, as far as they are published.

SHC has lists called "new-seg" and "official-seg" and datasets called A and B; it publishes neither
the lists nor which list belongs to which dataset. Here B is the official halves, with the training
rows as the database, and A a seeded draw of as many rows per class. SHC's curves show about forty
relevant rows per query on both, which agrees; a draw of equal sizes does not explain that they are
far higher on A than on B. The protocol ``lists`` reads the lists themselves.
"""

from __future__ import annotations

import numpy as np

from dataset.preparation import rules
from dataset.preparation.protocol import Protocol, Selection
from dataset.sources import list_protocols
from dataset.splits import SplitConfig, SplitManifest, make_split

_NOTE = "which of SHC's splits is called {} is our reading; its lists are not released"


def protocols(rows: int, classes: int, train: int) -> tuple[Protocol, ...]:
    """Return A, B and ``lists``; ``train`` of the ``rows`` are the official training rows."""
    published = {
        "rows": rows, "classes": classes, "train": train, "query": rows - train, "database": train
    }  # fmt: skip
    halves = rules.by_subsets(train="train", query="test", database="train")
    return (
        Protocol(
            "A", "SHC", like_official, 0, published=published,
            note=f"a draw as large as the official halves: {_NOTE.format('A')}",
            stated=list_protocols.SHC,
        ),
        Protocol(
            "B", "SHC", halves, published=published,
            note=f"the official halves: {_NOTE.format('B')}", stated=list_protocols.SHC,
        ),
        Protocol(
            "lists", "SHC, by list files of path and labels", rules.by_lists,
            lists=list_protocols.FILES, published={"classes": classes}, stated=list_protocols.SHC,
        ),
    )  # fmt: skip


def like_official(selection: Selection, protocol: Protocol) -> SplitManifest:
    """Of each class as many random training rows as the official half has; the rest are queries.

    If the configuration sets numbers: as many random queries and training rows of each class.
    """
    if protocol.query is not None or protocol.train is not None:
        numbers = SplitConfig("per_class", protocol.seed, protocol.query, protocol.train)
        return make_split(numbers, selection.labels)
    official = selection.subset("train")
    order = np.random.RandomState(protocol.seed).permutation(len(selection))
    train = np.zeros(len(selection), bool)
    for c in range(selection.labels.shape[1]):
        members = selection.labels[:, c] > 0
        train[order[members[order]][: int((members & official).sum())]] = True
    rows = np.flatnonzero(train)
    rule = f"per class as many rows as the official half, seed {protocol.seed}"
    return SplitManifest(rows, np.flatnonzero(~train), rows, rule=rule)
