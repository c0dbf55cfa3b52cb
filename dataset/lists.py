"""Pictures named by published list files: ``path label-bits`` a line, one file per part.

For whoever has pictures and lists but not the official annotation files, or lists of a dataset
that is not here. Rows are numbered in the order train, query, database, each in its file's order; a
picture in several lists is one row. Forms: :mod:`dataset.preparation.lists`.

Zero-shot lists (:attr:`ListsConfig.unseen`): classes of the queries are not seen in training. Rows
of them in the training list are PZSH's generated pictures: they become generated rows at the end of
the dataset, for methods that ask for them, and the list's last column is the feature that a
training row is aligned to.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Literal

import numpy as np

from common.registry import DATASETS
from dataset.auxiliary.pseudo_images import with_listed_rows
from dataset.base import HashDataset
from dataset.images import FileImages
from dataset.picture_forms import Colour
from dataset.preparation.followed import check_stated
from dataset.preparation.lists import ListedRows, find_list, read_list
from dataset.splits import SplitManifest
from dataset.tables import read_names
from utils.errors import UserError
from utils.files import file_digest

log = logging.getLogger("hashing")


@dataclasses.dataclass(frozen=True)
class ListSplit:
    """Key of ``dataset.split`` for a split that lists state: nothing is drawn.

    Attributes:
        seed: of the rows that a run cuts off for validation.
    """

    seed: int = 0


@dataclasses.dataclass(frozen=True)
class ListsConfig:
    """Keys of ``lists``; file names are relative to ``root``, with or without ``.gz``.

    Attributes:
        root: the folder with the lists, and where the paths in them start.
        train, query: list files.
        database: list file; None: every listed row that is no query.
        image_root: where the paths start, if not at ``root``.
        archive: zip file below ``image_root`` that holds the pictures.
        class_names_file: one class name a line.
        unseen: ``query``: classes of the queries are unseen, and training rows of them generated;
            ``none``: every class is seen; ``auto``: ``query`` where no training row has a class of
            the queries, or where the training list has features, as PZSH's have.
        protocol: the published protocol that the lists are of, as ``coco/lists``; they are held to
            its published numbers. Also ``imagenet100/lists`` (HashNet's), ``imagenet100/fire``
            and ``voc2012/lists``.
        colour: how pictures become RGB: ``as_seen`` (more than 8 bits scaled, alpha on white, EXIF
            rotation) or ``release`` (PIL alone: docs/pictures.md); null: ``release``
            where ``protocol`` is given, else ``as_seen``.
        split: see there.
    """

    root: str = ""
    train: str = "train.txt"
    query: str = "test.txt"
    database: str | None = "database.txt"
    image_root: str | None = None
    archive: str | None = None
    class_names_file: str | None = None
    unseen: Literal["auto", "query", "none"] = "auto"
    protocol: str | None = None
    colour: Colour | None = None
    split: ListSplit = ListSplit()

    def __post_init__(self) -> None:
        if self.colour is None:
            object.__setattr__(self, "colour", "release" if self.protocol else "as_seen")


@DATASETS.register("lists", config=ListsConfig)
def build(config: ListsConfig, name: str) -> HashDataset:
    """Pictures in published list files, `path label-bits`, one file per part.

    Raises:
        UserError: a list is missing or broken, lists that contradict each other or have other
            numbers than the published ones, a picture in two parts that must be apart, or a first
            picture that is not where its path says.
    """
    if not config.root:
        raise UserError("dataset.root is not set; give the folder that holds the lists.")
    root = Path(config.root).expanduser()
    image_root = root / Path(config.image_root or ".").expanduser()
    parts = _read(config, root)
    unseen, given = _unseen(config.unseen, parts), parts["train"]
    if unseen.any():
        parts["train"] = given.take(np.flatnonzero(~given.labels[:, unseen].any(1)))
    row_of: dict[str, int] = {}
    for listed in parts.values():
        for path in listed.paths:
            row_of.setdefault(path, len(row_of))
    rows = {part: np.array([row_of[p] for p in listed.paths]) for part, listed in parts.items()}
    labels = _labels(parts, rows, len(row_of))
    if "database" not in rows:
        rows["database"] = np.setdiff1d(np.arange(len(row_of)), rows["query"])
    files = ", ".join(f"{listed.file.name} {file_digest(listed.file)}" for listed in parts.values())
    split = SplitManifest(**rows, rule=f"lists {files}")
    split.check(len(row_of), "the lists")
    check_stated(config.protocol, labels, split.counts)
    images = FileImages(tuple(row_of), image_root, config.archive, config.colour or "as_seen")
    images.check_first(parts["train"].file)
    dataset = HashDataset(
        name=name,
        images=images,
        labels=labels,
        class_names=_class_names(config, root, labels.shape[1]),
        multi_label=bool((labels.sum(1) > 1).any()),
        split=split,
        seen_classes=tuple(np.flatnonzero(~unseen).tolist()) if unseen.any() else (),
    )
    generated = len(given) - len(parts["train"])
    if unseen.any():
        log.info(
            "%s: the %d classes of the queries are unseen (dataset.unseen); %s generated pictures "
            "of them in '%s'",
            name, unseen.sum(), f"{generated:,}" if generated else "no", given.file.name,
        )  # fmt: skip
    if not unseen.any() or not (generated or given.features is not None):
        return dataset
    return with_listed_rows(dataset, given, [image_root, root])


def _unseen(stated: str, parts: dict[str, ListedRows]) -> np.ndarray:
    """Return which classes no training row may have, bool [C]; see :class:`ListsConfig`."""
    train, query = parts["train"], parts["query"]
    of_queries = np.asarray(query.labels.any(0))
    none = np.zeros_like(of_queries)
    if stated == "none" or train.labels.shape[1] != query.labels.shape[1]:
        return none  # another number of labels is refused later
    of_train = train.labels.any(0)
    if stated == "query" or train.features is not None or not (of_queries & of_train).any():
        if not (of_train & ~of_queries).any():
            if stated == "query":
                raise UserError(
                    f"dataset.unseen=query, but every class in '{train.file}' is one of the "
                    "queries' too; no training row would be left: give dataset.unseen=none."
                )
            return none
        return of_queries
    return none


def _read(config: ListsConfig, root: Path) -> dict[str, ListedRows]:
    """Return part → its list."""
    parts = {}
    for part in ("train", "query", "database"):
        name = getattr(config, part)
        if name is None:
            continue
        file = find_list([root], name)
        if file is None:
            without = "; database=null takes every listed row that is no query"
            raise UserError(
                f"'{root / name}' does not exist (dataset.{part})"
                f"{without if part == 'database' else ''}."
            )
        parts[part] = read_list(file)
    return _with_all_classes(parts)


def _with_all_classes(parts: dict[str, ListedRows]) -> dict[str, ListedRows]:
    """Return lists of class numbers with as many columns as the greatest number of all needs."""
    if not all(listed.numbered for listed in parts.values()):
        if any(listed.numbered for listed in parts.values()):
            kinds = ", ".join(
                f"'{listed.file.name}' has {'class numbers' if listed.numbered else 'label bits'}"
                for listed in parts.values()
            )
            raise UserError(f"The lists differ in kind: {kinds}; all need the same.")
        return parts
    width = max(listed.labels.shape[1] for listed in parts.values())
    return {
        part: dataclasses.replace(
            listed, labels=np.pad(listed.labels, ((0, 0), (0, width - listed.labels.shape[1])))
        )
        for part, listed in parts.items()
    }


def _labels(parts: dict[str, ListedRows], rows: dict[str, np.ndarray], n_rows: int) -> np.ndarray:
    """Return float32 [N,C]; a picture in two lists must have the same labels in both."""
    widths = {listed.file.name: listed.labels.shape[1] for listed in parts.values()}
    if len(set(widths.values())) > 1:
        described = ", ".join(f"{file} has {width}" for file, width in widths.items())
        raise UserError(f"The lists differ in the number of labels: {described}; they must agree.")
    labels = np.zeros((n_rows, next(iter(widths.values()))), np.float32)
    known = np.zeros(n_rows, bool)
    for part, listed in parts.items():
        part_rows = rows[part]
        differ = known[part_rows] & np.any(np.not_equal(labels[part_rows], listed.labels), axis=1)
        if differ.any():
            path = listed.paths[int(np.flatnonzero(differ)[0])]
            raise UserError(
                f"'{listed.file}' gives '{path}' other labels than another list does "
                f"({int(differ.sum())} such pictures)."
            )
        labels[part_rows], known[part_rows] = listed.labels, True
    return labels


def _class_names(config: ListsConfig, root: Path, n_classes: int) -> tuple[str, ...]:
    """Return the names in ``class_names_file``, or ``class 0``, ``class 1``, … without one."""
    if config.class_names_file is None:
        return tuple(f"class {c}" for c in range(n_classes))
    file = root / Path(config.class_names_file).expanduser()
    names = read_names(file)
    if len(names) != n_classes:
        raise UserError(f"'{file}' names {len(names)} classes, but the lists have {n_classes}.")
    return names
