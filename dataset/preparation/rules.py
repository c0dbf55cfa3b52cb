"""Rules of drawing; see :data:`dataset.preparation.protocol.Draw`.

The counting rules are those of :mod:`dataset.splits` with the protocol's numbers.
"""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np

from dataset.preparation.protocol import Draw, Protocol, Selection
from dataset.splits import SplitConfig, SplitManifest, make_split
from utils.errors import UserError

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


def in_turn(database: Literal["rest", "train, rest", "train", "by class"]) -> Draw:
    """Return the rule that shuffles the rows of every class in turn, as DeepHash-pytorch and FIRe.

    The first ``protocol.query`` rows of a class are queries, the next ``protocol.train`` are for
    training. Parts are in the order drawn, class after class.

    Args:
        database: ``rest``: all others; ``train, rest``: all training rows, then all others;
            ``by class``: the same rows, class after class; ``train``: the training rows alone.
    """

    def draw(selection: Selection, protocol: Protocol) -> SplitManifest:
        random = np.random.RandomState(protocol.seed)
        query, train = protocol.query or 0, protocol.train or 0
        parts: dict[str, list[np.ndarray]] = {"query": [], "train": [], "rest": [], "others": []}
        for c, name in enumerate(selection.class_names):
            rows = random.permutation(np.flatnonzero(selection.labels[:, c]))
            if query < 1 or train < 1 or query + train > len(rows):
                raise UserError(
                    f"dataset.split.query={query} and dataset.split.train={train} rows per class "
                    f"are not to be had of class '{name}', which has {len(rows)}; give fewer, at "
                    "least 1 of each."
                )
            ends = np.split(rows, [query, query + train])
            for part, members in zip(parts, (*ends, rows[query:]), strict=True):
                parts[part].append(members)
        joined = {part: np.concatenate(members) for part, members in parts.items()}
        databases = {
            "rest": joined["rest"],
            "train, rest": np.concatenate([joined["train"], joined["rest"]]),
            "by class": joined["others"],
            "train": joined["train"],
        }
        rule = f"the rows of every class shuffled in turn, seed {protocol.seed}"
        return SplitManifest(joined["train"], joined["query"], databases[database], rule=rule)

    return draw


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
