"""Protocols: the rows and classes that papers use, how they draw them, and their numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from dataset.preparation.index import Index
from dataset.preparation.lists import ListedRows
from dataset.splits import SplitManifest


@dataclasses.dataclass(frozen=True)
class Selection:
    """The rows and classes that a protocol uses; n rows, C classes.

    Attributes:
        index: the index of the dataset.
        rows: int64 [n], row numbers of the index, ascending.
        labels: float32 [n,C].
        class_names: C names.
        seen_classes: numbers of the classes that may be trained on; empty: all.
        listed: part → rows of the selection (not of the index) that its list file names, in the
            order of the file.
        trained_on: the training list as it is, where it has features or generated pictures.
    """

    index: Index
    rows: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    seen_classes: tuple[int, ...] = ()
    listed: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    trained_on: ListedRows | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def paths(self) -> list[str]:
        """The n rows' paths below the root."""
        return [self.index.rows.paths[row] for row in self.rows]

    def subset(self, name: str) -> np.ndarray:
        """Return which rows are in a subset of the index, bool [n].

        Raises:
            UserError: the index has no such subset.
        """
        return self.index.subset(name)[self.rows]


Draw = Callable[[Selection, "Protocol"], SplitManifest]
"""A rule: selected rows and the protocol's numbers → train, query and database rows."""


@dataclasses.dataclass(frozen=True)
class ListFiles:
    """Published list files of a protocol: one name per part, looked for with and without ``.gz``.

    Attributes:
        database: None: every labelled row that is no query.
        database_needed: whether the database's list must exist; if not, the database is every
            labelled row that is no query.
    """

    train: str
    query: str
    database: str | None = None
    database_needed: bool = True


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The rows and classes that papers use, how they are drawn, and the published numbers.

    Attributes:
        name: the value of ``dataset.split.name``.
        papers: the papers that use it.
        draw: the rule, from :mod:`dataset.preparation.rules`.
        seed: of the draw.
        query: for rules that count: query rows in all, or per class.
        train: the same for training rows.
        train_in_database: whether training rows are also in the database.
        classes: names of the classes it uses, in its order of columns; None: all.
        keep: subset (``Rows.subsets``) that rows must belong to; None: all.
        keep_unlabelled: whether rows without a label in ``classes`` are used; they are relevant to
            no query.
        seen: class set (``Rows.class_sets``) that may be trained on; None: all classes.
        lists: published list files that the rule reads.
        published: published numbers: ``rows``, ``classes``, ``train``, ``query``, ``database``,
            ``unlabelled``.
        per_class: part → rows that each class with rows in this part has.
        note: a caveat of results under this protocol, such as a leak.
        overlap: whether queries may stand in the database or among the training rows: for
            reproducing released faults only.
    """

    name: str
    papers: str
    draw: Draw
    seed: int = 0
    query: int | None = None
    train: int | None = None
    train_in_database: bool = True
    classes: tuple[str, ...] | None = None
    keep: str | None = None
    keep_unlabelled: bool = False
    seen: str | None = None
    lists: ListFiles | None = None
    published: Mapping[str, int] = dataclasses.field(default_factory=dict)
    per_class: Mapping[str, int] = dataclasses.field(default_factory=dict)
    note: str = ""
    overlap: bool = False
