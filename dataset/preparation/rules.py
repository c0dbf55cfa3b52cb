"""Rules of drawing; see :data:`dataset.preparation.protocol.Draw`.

The counting rules are those of :mod:`dataset.splits` with the protocol's numbers.
"""

from __future__ import annotations

import functools

import numpy as np

from dataset.preparation.protocol import Draw, Protocol, Selection
from dataset.splits import SplitConfig, SplitManifest, make_split

REST = "rest"
"""Name of the rows that are no query (and, without ``train_in_database``, no training row)."""


def _counted(rule: str, selection: Selection, protocol: Protocol) -> SplitManifest:
    config = SplitConfig(
        rule, protocol.seed, protocol.query, protocol.train, protocol.train_in_database
    )
    return make_split(config, selection.labels, selection.seen_classes)


permutation: Draw = functools.partial(_counted, "permutation")
per_class: Draw = functools.partial(_counted, "per_class")
seen_unseen: Draw = functools.partial(_counted, "seen_unseen")


def cross_modal(
    rows: int, labels: int, mith: tuple[int, int, int],
    classes: tuple[str, ...] | None = None, mith_keep: str | None = None,
) -> tuple[Protocol, ...]:  # fmt: skip
    """Return the cross-modal papers' protocols: rows permuted, database = all that are no query.

    Args:
        rows: published number of rows.
        labels: published number of classes.
        mith: published numbers of rows, query rows and training rows of MITH.
        classes: see :class:`~dataset.preparation.protocol.Protocol`.
        mith_keep: the subset that MITH's rows belong to; None: all rows.
    """

    def permuted(
        name: str, papers: str, seed: int, sizes: tuple[int, int, int], keep: str | None = None,
        note: str = "",
    ) -> Protocol:  # fmt: skip
        rows, query, train = sizes
        return Protocol(
            name, papers, permutation, seed, query, train, classes=classes, keep=keep, note=note,
            published={
                "rows": rows, "classes": labels, "train": train, "query": query,
                "database": rows - query,
            },
        )  # fmt: skip

    sizes, uncut = (rows, 5000, 10000), "TwDH states mAP@5000 of an uncut ranking"
    return (
        permuted("dcmht", "DCMHT (later code), DSPH, DNPH, DIMCH, UMoED", 1814, sizes),
        permuted("dcmht_first", "DCMHT (first code, defaults)", 1814, (rows, 5120, 10240)),
        permuted("mith", "MITH, VTPH", 1, mith, mith_keep),
        permuted("twdh", "TwDH", 1814, sizes, note=uncut),
    )


def by_subsets(
    train: str | tuple[str, ...], query: str | tuple[str, ...], database: str | tuple[str, ...]
) -> Draw:
    """Return the rule that uses the rows marked in the official files; nothing is drawn.

    Args:
        train: one or several subsets of the index (:attr:`~dataset.preparation.rows.Rows`).
        query: the same.
        database: the same, or :data:`REST`.
    """

    def draw(selection: Selection, protocol: Protocol) -> SplitManifest:
        def rows(names: str | tuple[str, ...]) -> np.ndarray:
            names = (names,) if isinstance(names, str) else names
            return np.flatnonzero(np.any([selection.subset(name) for name in names], axis=0))

        parts = {"train": rows(train), "query": rows(query)}
        if database == REST:
            used = parts["query"]
            if not protocol.train_in_database:
                used = np.concatenate([used, parts["train"]])
            parts["database"] = np.setdiff1d(np.arange(len(selection)), used)
        else:
            parts["database"] = rows(database)
        return SplitManifest(**parts, rule="rows marked in the official files")

    return draw


def by_lists(selection: Selection, protocol: Protocol) -> SplitManifest:
    """The rows that published list files name, in their order.

    Without a list of the database it is every row that is no query.
    """
    listed, lists = selection.listed, protocol.lists
    assert lists is not None
    database = listed.get("database")
    if database is None:
        database = np.setdiff1d(np.arange(len(selection)), listed["query"])
    files = ", ".join(str(getattr(lists, part)) for part in listed)
    rest = "" if "database" in listed else "; database: every labelled row that is no query"
    return SplitManifest(listed["train"], listed["query"], database, rule=f"lists {files}{rest}")
