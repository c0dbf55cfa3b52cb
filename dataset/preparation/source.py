"""What a dataset with official files states: its archives, its rows, its protocols.

A file in ``dataset/sources/`` derives a :class:`Source`, whose :meth:`~Source.read` turns the
official layout into :class:`Rows`, and registers a function that opens what was prepared
(:func:`dataset.preparation.prepared_dataset.open_prepared`). ``main.py prepare`` fetches, unpacks
and indexes it, ``main.py verify`` holds it to its protocols' published figures, and training draws
the split that a :class:`Protocol` describes.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from dataset.base import ImageSource
from dataset.images import FileImages
from dataset.splits import SplitManifest
from utils.errors import UserError, unknown_name

if TYPE_CHECKING:
    from dataset.preparation.selection import Selection


@dataclasses.dataclass(frozen=True)
class OfficialFile:
    """A file as its publisher offers it: an archive, or a file that is used as it is.

    Attributes:
        name: of the file, as published (``train2017.zip``).
        unpacks: paths below the root that are there once it is unpacked; one of them missing means
            that it is not. Patterns with ``*`` are accepted, and other names that people unpack it
            under: ``"Flickr|images"``. Empty for a file that is no archive.
        into: folder below the root that it is unpacked into, or stands in.
        url: where anybody may fetch it; None where one has to ask or to click.
        page: where a person finds it.
        size: in bytes, where known.
        checksum: ``sha256:…``, ``sha1:…`` or ``md5:…`` as published; None where none is known.
        unpacked_size: in bytes, roughly; by default the size.
        needed: whether there are no rows without it.
    """

    name: str
    unpacks: tuple[str, ...] = ()
    into: str = ""
    url: str | None = None
    page: str = ""
    size: int | None = None
    checksum: str | None = None
    unpacked_size: int | None = None
    needed: bool = True

    def is_unpacked(self, root: Path) -> bool:
        """Tell whether its content (or the file itself, if it is no archive) is there."""
        return not self.lacking(root)

    def lacking(self, root: Path) -> list[str]:
        """Return which of its contents are not there."""
        inside = self.unpacks or (str(PurePosixPath(self.into) / self.name),)
        return [p for p in inside if not any(any(root.glob(way)) for way in p.split("|"))]


@dataclasses.dataclass(frozen=True)
class Attributes:
    """Class attributes as one official file states them; C classes, A attributes.

    Attributes:
        class_names: C names, in the order of the rows of ``values``.
        names: A names.
        values: float32 [C,A].
    """

    class_names: tuple[str, ...]
    names: tuple[str, ...]
    values: np.ndarray

    def for_classes(self, class_names: Sequence[str]) -> np.ndarray:
        """Return the rows of ``class_names``, found by name; float32 [len,A].

        Raises:
            UserError: a class has no row, or two.
        """
        place = {name: row for row, name in enumerate(self.class_names)}
        if len(place) < len(self.class_names) or len(self.values) != len(self.class_names):
            raise UserError(
                f"The attributes have {len(self.values)} rows for {len(self.class_names)} class "
                f"names, {len(place)} of them different; one row per class is needed."
            )
        unknown = [name for name in class_names if name not in place]
        if unknown:
            raise UserError(
                f"The attributes have no row for class '{unknown[0]}' ({len(unknown)} such)."
            )
        rows = [place[name] for name in class_names]
        return np.ascontiguousarray(self.values[rows], dtype=np.float32)


@dataclasses.dataclass(frozen=True)
class Rows:
    """All rows of a dataset, as its official files state them; N rows, C classes.

    Their order decides what a seeded draw means: it must follow from the files' content, never from
    the order in which a folder lists its files.

    Attributes:
        keys: N different words by which list files name the rows (see :meth:`Source.list_key`).
        paths: N paths of pictures below the root, with forward slashes.
        labels: uint8 [N,C], 0/1; a row may carry none.
        class_names: C different names.
        texts: for each row its captions or tags, perhaps none; None for image-only data.
        attributes: of the classes; matched to ``class_names`` by name when the index is written.
        class_sets: name → class names, e.g. the seen classes of a zero-shot split.
        subsets: name → bool [N], e.g. the official training rows, or the rows with enough tags.
        extras: name → array with N rows, handed on in ``HashDataset.extras``.
    """

    keys: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...] | None = None
    attributes: Attributes | None = None
    class_sets: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    subsets: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    extras: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)


Draw = Callable[["Selection", "Protocol"], SplitManifest]
"""A rule: the rows a protocol uses, and its numbers → which of them are train, query, database."""


@dataclasses.dataclass(frozen=True)
class ListFiles:
    """Published list files of a protocol: one name per part, looked for with and without ``.gz``.

    Attributes:
        database: None: every labelled row that is no query.
        database_needed: whether the database's list has to be there; otherwise, without it, every
            labelled row that is no query stands in its place.
    """

    train: str
    query: str
    database: str | None = None
    database_needed: bool = True


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Which rows and classes papers used, how they were drawn, and the figures they state.

    Attributes:
        name: what ``dataset.split.name`` chooses it by.
        papers: who used it.
        draw: the rule, from :mod:`dataset.preparation.rules`.
        seed: of the draw.
        query: for rules that count: query rows in all, or per class.
        train: the same for training rows.
        train_in_database: whether training rows are also in the database.
        classes: names of the classes it uses, in its order of columns; None: all.
        keep: subset (:attr:`Rows.subsets`) that rows must belong to; None: all.
        keep_unlabelled: whether rows without a label in ``classes`` are kept; they are relevant to
            nothing.
        seen: class set (:attr:`Rows.class_sets`) that may be trained on; None: all classes.
        lists: published list files that the rule reads.
        published: figures to hold it to: ``rows``, ``classes``, ``train``, ``query``, ``database``,
            ``unlabelled``.
        per_class: part → rows that each class with rows in this part has.
        note: what a result under this protocol must say, such as a leak.
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


class Source(ABC):
    """A dataset with official files.

    Attributes:
        name: the dataset's word on the command line.
        title: how its authors call it.
        licence: in a few words.
        files: all that has to be there.
        protocols: the first one is the default.
        multi_label: whether a row may carry several labels.
    """

    name: str
    title: str
    licence: str
    files: tuple[OfficialFile, ...]
    protocols: tuple[Protocol, ...]
    multi_label: bool = False

    @abstractmethod
    def read(self, root: Path) -> Rows:
        """Read the official layout below ``root``; pictures are not opened.

        Raises:
            UserError: a file is missing or is not what it should be; names it.
        """

    def attributes(self, root: Path) -> tuple[Attributes, ...]:
        """Read all official statements of the class attributes, which ``verify`` compares.

        Each is held against the index by class name; a dataset whose files state them twice gives
        both.
        """
        return ()

    def list_key(self, path: str) -> str:
        """Return the key of the row that a path in a list file means; by default its stem."""
        return PurePosixPath(path).stem

    def images(self, root: Path, paths: Sequence[str]) -> ImageSource:
        """Return the pictures at ``paths``; overridden where they are not files of their own."""
        return FileImages(paths, root)

    def protocol(self, name: str) -> Protocol:
        """Return the protocol called ``name``.

        Raises:
            UserError: no such; lists the known ones and the nearest.
        """
        known = {protocol.name: protocol for protocol in self.protocols}
        if name not in known:
            raise unknown_name(f"split of {self.name} (dataset.split.name)", name, known)
        return known[name]
