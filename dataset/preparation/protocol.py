"""Protocols: the rows and classes that papers use, how they draw them, and their numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dataset.preparation.index import Index
from dataset.preparation.lists import ListedRows
from dataset.splits import SplitManifest
from utils.errors import unknown_name


@dataclasses.dataclass(frozen=True)
class Selection:
    """The rows and classes that a protocol uses; n rows, C classes.

    Attributes:
        index: the index of the dataset.
        rows: int64 [n], row numbers of the index, in the protocol's order.
        labels: float32 [n,C].
        class_names: C names.
        seen_classes: numbers of the classes that may be trained on; empty: all.
        listed: part → rows of the selection (not of the index) that its list file names, in the
            order of the file.
        texts: for each of the n rows its captions, at least one; None for image-only data.
        trained_on: the training list as it is, where it has features or generated pictures.
    """

    index: Index
    rows: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    seen_classes: tuple[int, ...] = ()
    listed: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    texts: list[tuple[str, ...]] | None = None
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
        fields: part → fields of a line with tabs that make it a row; shorter ones are left out.
    """

    train: str
    query: str
    database: str | None = None
    database_needed: bool = True
    fields: Mapping[str, int] = dataclasses.field(default_factory=dict)


Order = Callable[[Sequence[str]], Sequence[int]]
"""The keys of rows → their positions in the order that the draw counts by."""


def as_strings(keys: Sequence[str]) -> Sequence[int]:
    """Return the order of numbers that are sorted as strings.

    >>> [["1", "2", "10", "11", "100"][i] for i in as_strings(["1", "2", "10", "11", "100"])]
    ['1', '10', '100', '11', '2']
    """
    return sorted(range(len(keys)), key=lambda row: keys[row])


@dataclasses.dataclass(frozen=True)
class Texts:
    """What the texts of a protocol are made of.

    Attributes:
        source: in words.
        kept: which tags stay, in words.
        absent: what stands for the text of a row without one, in words.
        variant: the texts of the index that are used, a key of ``Rows.variants``; empty: ``texts``.
        when_none: the text of a row without one.
        several: whether a row has several texts, of which one is drawn.
    """

    source: str
    kept: str = "none"
    absent: str = "cannot occur"
    variant: str = ""
    when_none: str = ""
    several: bool = False


@dataclasses.dataclass(frozen=True)
class Stated:
    """What becomes of rows, in the words of the release; the numbers are the protocol's.

    Attributes:
        order: of the rows, before anything is drawn.
        rule: how they are drawn; ``{query}`` and ``{train}`` stand for the protocol's numbers.
        generator: what draws them; None: nothing is drawn.
        numbers: the counts that are known, of ``total``, ``query``, ``train``, ``database``.
        contains_train: whether training rows are in the database; None: unknown.
        contains_query: the same of queries.
        unlabelled: what becomes of rows without a label; None: unknown.
        labels: how labels are used.
        seen_classes: how many classes are trained on, where others exist.
        painted: generated rows of unseen classes that are trained on besides.
    """

    order: str
    rule: str
    generator: str | None = None
    numbers: tuple[str, ...] = ("total", "query", "train", "database")
    contains_train: bool | str | None = True
    contains_query: bool | str | None = False
    unlabelled: str | None = "cannot occur"
    labels: str | None = "one-hot"
    seen_classes: int | None = None
    painted: int = 0


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
        order: of the rows, which the draw counts by; None: the order of the index. Rows of a
            ``.mat`` file keep theirs.
        texts: None: the texts of the index, as they are.
        stated: all this in words; None: no release.
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
    order: Order | None = None
    texts: Texts | None = None
    stated: Stated | None = None


class ProtocolSet:
    """A dataset that papers use, by name, with its protocols.

    Attributes:
        name: the dataset's word on the command line.
        protocols: the first one is the default.
    """

    name: str
    protocols: tuple[Protocol, ...]

    def protocol(self, name: str) -> Protocol:
        """Return the protocol called ``name``.

        Raises:
            UserError: no such; lists the known ones and the nearest.
        """
        known = {protocol.name: protocol for protocol in self.protocols}
        if name not in known:
            raise unknown_name(f"split of {self.name} (dataset.split.name)", name, known)
        return known[name]
