"""A user's own pictures: class folders, or a table (CSV) of paths and labels; also inside a zip.

Class folders: ``root/<class>/**/<picture>``; a folder without pictures is no class; links
are followed as :mod:`dataset.picture_walk` says. CSV: a header,
then a row per picture; several labels are separated by ``;``. Without a column of labels, columns
of 0/1 are classes. Captions are optional: the columns
``caption``, ``caption2``, ``caption3``, …, one caption each. Rows of one path are one row with the
captions of all. ``.tsv`` files are split at tabs, others at what their header is split by: ``,``,
``;`` or tabs.

Classes are numbered by name, sorted as text; pictures of class folders by class, then path; rows of
a CSV stay in its order.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import logging
import os
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from common.registry import DATASETS
from dataset.base import HashDataset
from dataset.class_attributes import read_class_attributes
from dataset.images import SUFFIXES, FileImages, open_archive
from dataset.picture_forms import Colour
from dataset.picture_walk import pictures_among, pictures_below, tell_left_out
from dataset.splits import SplitConfig, make_split
from dataset.tables import dataset_folder, read_names
from utils.errors import UserError, nearest, unknown_name
from utils.files import check_plain_file

log = logging.getLogger("hashing")
_MOST_HEADER = 1 << 20  # characters


@dataclasses.dataclass(frozen=True)
class FolderConfig:
    """Keys of a dataset of one's own pictures.

    Attributes:
        root: the folder with the class folders, or where paths in the CSV start.
        csv: table of pictures below ``root``; None takes class folders.
        archive: zip file below ``root`` that holds the pictures (read in place).
        path_column: column of the CSV with the path of the picture.
        label_column: column with the label or labels.
        caption_column: column with a caption; it and its numbered followers need not be there.
        class_attributes: table of class attributes below ``root`` (or anywhere, by a full path): a
            CSV, or a folder in AwA's layout (:mod:`dataset.class_attributes`).
        unseen_classes: classes that are never trained on, for ``split.rule=seen_unseen``: their
            names, or a file with one a line (AwA's ``testclasses.txt``).
        colour: how pictures become RGB: ``as_seen`` (more than 8 bits scaled, alpha on white, EXIF
            rotation) or ``release`` (PIL alone: docs/pictures.md).
        split: by default, of each class a tenth for queries and the rest for training and database.
    """

    root: str = ""
    csv: str | None = None
    archive: str | None = None
    path_column: str = "path"
    label_column: str = "label"
    caption_column: str = "caption"
    class_attributes: str | None = None
    unseen_classes: tuple[str, ...] = ()
    colour: Colour = "as_seen"
    split: SplitConfig = SplitConfig(rule="per_class", seed=0)


@dataclasses.dataclass(frozen=True)
class _Row:
    """One image: its path, its labels and its captions."""

    path: str
    labels: tuple[str, ...]
    captions: tuple[str, ...] = ()


@DATASETS.register("folder", config=FolderConfig)
def build(config: FolderConfig, name: str) -> HashDataset:
    """One's own pictures, in class folders or listed in a CSV, with or without captions.

    Raises:
        UserError: no root, no picture, a bad row of the CSV (named by line), a path that leaves the
            root, a picture that is not there, or a split that does not fit.
    """
    root = dataset_folder(config.root, "the pictures")
    rows = _class_folders(root, config.archive) if config.csv is None else _read_csv(config, root)
    class_names = tuple(sorted({label for row in rows for label in row.labels}))
    column = {label: c for c, label in enumerate(class_names)}
    labels = np.zeros((len(rows), len(class_names)), dtype=np.float32)
    for i, row in enumerate(rows):
        labels[i, [column[label] for label in row.labels]] = 1
    seen = _seen(config, root, class_names)
    attributes = None
    if config.class_attributes is not None:
        attributes = read_class_attributes(root / Path(config.class_attributes).expanduser())
    return HashDataset(
        name=name,
        images=FileImages([row.path for row in rows], root, config.archive, config.colour),
        labels=labels,
        class_names=class_names,
        multi_label=bool((labels.sum(1) > 1).any()),
        split=make_split(config.split, labels, seen, root),
        texts=[row.captions for row in rows] if rows[0].captions else None,
        attributes=None if attributes is None else attributes.for_classes(class_names),
        attribute_names=() if attributes is None else attributes.names,
        seen_classes=seen,
    )


def _seen(config: FolderConfig, root: Path, class_names: tuple[str, ...]) -> tuple[int, ...]:
    """Return the numbers of the seen classes; () where no class is unseen."""
    unseen = config.unseen_classes
    if len(unseen) == 1 and unseen[0] not in class_names:
        file = root / Path(unseen[0]).expanduser()
        if file.is_file():
            unseen = read_names(file)
    for name in unseen:
        if name not in class_names:
            raise unknown_name("class in dataset.unseen_classes", name, class_names)
    if not config.unseen_classes:
        return ()
    if config.split.rule not in ("seen_unseen", "file"):
        raise UserError(
            f"dataset.unseen_classes is given, but dataset.split.rule={config.split.rule} trains "
            "on every class; set dataset.split.rule=seen_unseen."
        )
    return tuple(c for c, name in enumerate(class_names) if name not in unseen)


def _members(archive: zipfile.ZipFile) -> list[str]:
    return [info.filename for info in archive.infolist() if not info.is_dir()]


def _class_folders(root: Path, archive: str | None) -> list[_Row]:
    """List the images below ``root``, or in an archive there, by class folder."""
    source = f"'{root / archive}'" if archive is not None else f"'{root}'"
    prefix = ""
    if archive is None:
        pictures, others = pictures_below(root)
    else:
        with open_archive(root / archive) as opened:
            pictures, others = pictures_among(_members(opened), opened.open)
        prefix = _common_folder(pictures)
    rows = [_Row(path, (parts[0],)) for path in pictures if (parts := _below(path, prefix))]
    others = [path for path in others if _below(path, prefix)]
    tell_left_out(f"{source}, class folders", others)
    loose = len(pictures) - len(rows)
    if not rows:
        outside = f" ({loose} lie outside of any)" if loose else ""
        raise UserError(
            f"No picture in class folders in {source}{outside}; <class>/<picture> is needed, with "
            f"a name that ends in {', '.join(SUFFIXES)} or with the content of a picture, or a "
            "table of them in dataset.csv."
        )
    if loose:
        log.warning("%s: %d pictures outside of class folders are left out", source, loose)
    classes = {label for row in rows for label in row.labels}
    if lost := sorted({_below(path, prefix)[0] for path in others} - classes):
        log.warning(
            "%s: %d folders have files but no picture, so they are no classes: %s",
            source, len(lost), ", ".join(lost[:5]) + (", …" if lost[5:] else ""),
        )  # fmt: skip
    _tell_equal_but_for_case(classes)
    return sorted(rows, key=lambda row: (row.labels, row.path))


def _below(path: str, prefix: str) -> tuple[str, ...]:
    """Return class folder and further parts of a path; () where it lies in no class folder."""
    parts = PurePosixPath(path.removeprefix(prefix)).parts
    return parts if len(parts) > 1 else ()


def _tell_equal_but_for_case(classes: Iterable[str]) -> None:
    """Tell of classes whose names differ only in case or in blanks, as ``Dog`` and ``dog``."""
    groups: dict[str, list[str]] = {}
    for name in sorted(classes):
        groups.setdefault(" ".join(name.casefold().replace("_", " ").split()), []).append(name)
    for names in groups.values():
        if len(names) > 1:
            log.warning(
                "classes %s differ only in case or blanks; they stay %d classes, so rename one if "
                "one class is meant", " and ".join(repr(name) for name in names), len(names),
            )  # fmt: skip


def _common_folder(paths: list[str]) -> str:
    """Return the folder around the class folders of an archive as ``"name/"``, or ``""``."""
    tops = {PurePosixPath(path).parts[0] for path in paths}
    depth = min((len(PurePosixPath(path).parts) for path in paths), default=0)
    return f"{tops.pop()}/" if len(tops) == 1 and depth > 2 else ""


def _read_csv(config: FolderConfig, root: Path) -> list[_Row]:
    """Read ``dataset.csv``."""
    assert config.csv is not None
    members = None
    if config.archive is not None:
        with open_archive(root / config.archive) as archive:
            members = frozenset(_members(archive))
    path = root / Path(config.csv).expanduser()
    check_plain_file(path)
    if not path.is_file():
        raise UserError(f"'{path}' does not exist (dataset.csv).")
    delimiter = _delimiter(config, path)
    rows: list[_Row] = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, delimiter=delimiter, strict=True)
            header, first = list(reader.fieldnames or []), next(reader, None)
            classes = _class_columns(config, path, header, first or {})
            captions = _columns(config, path, header, bool(classes))
            for cells in itertools.chain([first] if first else [], reader):
                line = f"'{path}' line {reader.line_num}"
                row = _row(config, cells, captions, classes, line)
                rows.append(dataclasses.replace(row, path=_relative_path(row.path, root, line)))
                if members is None:
                    exists = len(rows) > 1 or (root / rows[0].path).is_file()
                else:
                    exists = rows[-1].path in members
                if not exists:
                    source = f"'{root / config.archive}'" if config.archive else f"'{root}'"
                    raise UserError(f"{line}: no picture '{row.path}' in {source}.")
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not UTF-8 text ({error}); save it as UTF-8.") from error
    except csv.Error as error:
        raise UserError(f"'{path}' line {reader.line_num + 1}: no valid CSV ({error}).") from error
    if not rows:
        raise UserError(f"'{path}' has a header but no row.")
    _tell_equal_but_for_case({label for row in rows for label in row.labels})
    if unused := [name for name in classes if not any(name in row.labels for row in rows)]:
        log.warning(
            "'%s': %d class columns are 0 in every row, so they are no classes: %s",
            path, len(unused), ", ".join(unused[:5]),
        )  # fmt: skip
    return _merged(rows, path)


def _delimiter(config: FolderConfig, path: Path) -> str:
    """Return what separates the cells, told where it is no comma.

    It is the tab of a ``.tsv``; else what splits the header into the columns that are asked for.
    """
    if path.suffix.lower() == ".tsv":
        return "\t"
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            header = stream.readline(_MOST_HEADER)
    except UnicodeDecodeError:
        return ","  # refused where the rows are read
    for delimiter in (",", ";", "\t"):
        cells = next(csv.reader([header], delimiter=delimiter), [])
        if config.path_column in cells and len(cells) > 1:
            if delimiter != ",":
                log.info("'%s': cells are taken to be separated by %r", path, delimiter)
            return delimiter
    return ","


def _merged(rows: list[_Row], path: Path) -> list[_Row]:
    """Return one row per picture, in order of first appearance: a caption a row is usual.

    Captions and labels are those of all rows of the picture, each once; told, with counts.
    """
    of_path: dict[str, list[_Row]] = {}
    for row in rows:
        of_path.setdefault(row.path, []).append(row)
    if len(of_path) == len(rows):
        return rows
    merged = [
        _Row(
            name,
            tuple(dict.fromkeys(label for row in same for label in row.labels)),
            tuple(dict.fromkeys(caption for row in same for caption in row.captions)),
        )
        for name, same in of_path.items()
    ]
    united = sum(len({frozenset(row.labels) for row in same}) > 1 for same in of_path.values())
    log.warning(
        "'%s': %d rows name %d pictures; those of one picture become one, with all captions%s",
        path, len(rows), len(merged),
        f" and labels ({united} pictures have other labels in other rows)" if united else "",
    )  # fmt: skip
    return merged


def _class_columns(
    config: FolderConfig, path: Path, header: list[str], first: Mapping[str | None, Any]
) -> list[str]:
    """Return the columns that are classes of 0/1: where none has labels, and ``first`` says so."""
    others = [name for name in header if name != config.path_column]
    others = [name for name in others if not _is_caption(config, name)]
    bits = all(str(first.get(name)).strip() in ("0", "1") for name in others)
    if config.label_column in header or len(others) < 2 or not bits:
        return []
    log.info(
        "'%s': no column '%s', so its %d columns of 0/1 are taken for classes: %s",
        path, config.label_column, len(others), ", ".join(others[:5]) + ", …" * (len(others) > 5),
    )  # fmt: skip
    return others


def _is_caption(config: FolderConfig, column: str) -> bool:
    return re.fullmatch(re.escape(config.caption_column) + r"\d*", column) is not None


def _columns(config: FolderConfig, path: Path, header: list[str], has_classes: bool) -> list[str]:
    """Check the header; return the caption columns."""
    repeated = sorted({column for column in header if header.count(column) > 1})
    if repeated:
        raise UserError(f"'{path}' line 1: the column '{repeated[0]}' is there twice; rename one.")
    for key in ("path_column",) if has_classes else ("path_column", "label_column"):
        column = getattr(config, key)
        if column not in header:
            raise UserError(
                f"'{path}' line 1: no column '{column}' (dataset.{key}).{nearest(column, header)} "
                f"Columns: {', '.join(header) or 'none'}."
            )
    captions = [column for column in header if _is_caption(config, column)]
    if not captions and config.caption_column != FolderConfig.caption_column:
        raise UserError(
            f"'{path}' line 1: no column '{config.caption_column}' (dataset.caption_column)."
            f"{nearest(config.caption_column, header)} Columns: {', '.join(header)}."
        )
    return captions


def _row(
    config: FolderConfig, cells: dict, captions: list[str], classes: list[str], line: str
) -> _Row:
    """Check and parse one row of the CSV; ``line`` names it in errors."""
    if None in cells:
        raise UserError(
            f"{line}: {len(cells[None])} more cells than the header has columns; put cells that "
            "hold the separator in double quotes."
        )
    if None in cells.values():
        raise UserError(f"{line}: fewer cells than the header has columns.")
    path = cells[config.path_column].strip()
    if classes:
        labels = _labels_of_bits({name: cells[name].strip() for name in classes}, line)
    else:
        words = cells[config.label_column].split(";")
        labels = tuple(word.strip() for word in words if word.strip())
    texts = tuple(cells[column].strip() for column in captions if cells[column].strip())
    if not path:
        raise UserError(f"{line}: the column '{config.path_column}' is empty.")
    if not labels:
        empty = "no class has a 1" if classes else f"the column '{config.label_column}' is empty"
        raise UserError(f"{line}: {empty}.")
    if captions and not texts:
        raise UserError(f"{line}: no caption; give one, or take the caption columns out.")
    return _Row(path, labels, texts)


def _labels_of_bits(bits: dict[str, str], line: str) -> tuple[str, ...]:
    """Return the classes whose cell is 1."""
    for name, bit in bits.items():
        if bit not in ("0", "1"):
            raise UserError(f"{line}: the class column '{name}' is '{bit}'; 0 or 1 is needed.")
    return tuple(name for name, bit in bits.items() if bit == "1")


def _relative_path(path: str, root: Path, line: str) -> str:
    """Return ``path`` relative to ``root``; refuse one that leaves it."""
    if not os.path.isabs(path) and ".." not in PurePosixPath(path).parts:
        return PurePosixPath(path).as_posix()
    base = os.path.abspath(root)
    full = os.path.abspath(os.path.join(base, path))
    if os.path.commonpath([base, full]) != base or full == base:
        raise UserError(
            f"{line}: '{path}' leaves the dataset's folder '{root}'; paths must stay below it."
        )
    return Path(os.path.relpath(full, base)).as_posix()
