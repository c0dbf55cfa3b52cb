"""Cross-modal data in the ``.mat`` layout of DCMHT, MITH, DSPH and DNPH: one folder, three files.

========== ======================================== ============================================
file       variable (first one found)               content, n rows
========== ======================================== ============================================
index.mat  ``index``, ``imgs``, ``FAll``            n paths of pictures, blank padded; or a
                                                    ``.npy`` of pictures, uint8 [n,H,W,3]
caption    ``caption``, ``tags``, ``YAll``          n strings, or n cells of several strings; or
                                                    a ``.txt`` with one line per row, which is found
                                                    as ``caption.txt`` without being asked for
label.mat  ``category``, ``LAll``, ``labels``,      n×C, 0/1, of any number type
           ``label``                                or n class numbers
========== ======================================== ============================================

``image_caption.mat`` with ``image_caption``, n captions made from the pictures for VTPH, may lie
beside them.

Files written by MATLAB up to v7 and by scipy are read with scipy, v7.3 files with h5py.
A one-dimensional array of strings is one caption per row (MITH's scripts), never a list of letters.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from common.registry import DATASETS
from common.storage.contents import content_digest
from dataset.base import WITHOUT_QUERIES, ArrayImages, AuxiliaryInputs, HashDataset, ImageSource
from dataset.images import TRIED, FileImages, SelectedImages
from dataset.label_reader import read_labels
from dataset.picture_forms import Colour
from dataset.preparation.followed import check_stated, completed
from dataset.splits import SplitConfig, make_split
from dataset.tables import dataset_folder, read_names
from utils.errors import UserError
from utils.files import check_plain_file
from utils.mat_file import is_hdf5, read_variable
from utils.numpy_file import check_numpy

INDEX_KEYS = ("index", "imgs", "FAll")
CAPTION_KEYS = ("caption", "tags", "YAll")
LABEL_KEYS = ("category", "LAll", "labels", "label")
SECOND_KEYS = ("image_caption", "caption")
CAPTIONS, CAPTION_LINES = "caption.mat", "caption.txt"
SECOND_CAPTIONS = "image_caption.mat"
_CLASS_NAMES = "label_names.txt"
log = logging.getLogger("hashing")


@dataclasses.dataclass(frozen=True)
class MatConfig:
    """Keys of a ``.mat`` dataset; file names are relative to ``root`` unless absolute.

    Attributes:
        root: the folder with the files.
        index_file: paths of the pictures (``.mat``), or the pictures themselves (``.npy``).
        caption_file: ``.mat``, or ``.txt`` with one line per row; ``caption.txt`` is read where
            there is no ``caption.mat``.
        label_file: 0/1 labels.
        image_root: where picture paths start (default: ``root``). Paths of another machine are
            looked for below it by their endings.
        class_names_file: one class name per line; the default file need not be there.
        second_caption_file: a caption made from each row's picture (``.mat`` or ``.txt``); the
            default file need not be there.
        on_unlabelled: rows without any label: ``error``, ``drop`` them (the split then counts the
            rows that are left), or ``keep`` them, as the releases do: relevant to no query.
        protocol: the published protocol that the rows follow, as ``flickr25k/mith``: it gives the
            numbers and the seed that ``split`` leaves out (seed 1814 counts as left out), and the
            files are held to its published numbers.
        colour: how pictures become RGB: ``as_seen`` (more than 8 bits scaled, alpha on white, EXIF
            rotation) or ``release`` (PIL alone: docs/pictures.md); null: ``release``
            where ``protocol`` is given, else ``as_seen``.
        split: see :class:`dataset.splits.SplitConfig`.
    """

    root: str = ""
    index_file: str = "index.mat"
    caption_file: str = CAPTIONS
    label_file: str = "label.mat"
    image_root: str | None = None
    class_names_file: str | None = _CLASS_NAMES
    second_caption_file: str | None = SECOND_CAPTIONS
    on_unlabelled: str = "error"
    protocol: str | None = None
    colour: Colour | None = None
    split: SplitConfig = SplitConfig()

    def __post_init__(self) -> None:
        if self.colour is None:
            object.__setattr__(self, "colour", "release" if self.protocol else "as_seen")
        if self.protocol is not None and self.split.rule == "permutation":
            object.__setattr__(self, "split", completed(self.split, self.protocol))


@DATASETS.register("mat", config=MatConfig)
def build(config: MatConfig, name: str) -> HashDataset:
    """Pictures, captions and labels in the .mat files of DCMHT and MITH.

    Raises:
        UserError: a file or variable is missing or broken, lengths differ, labels are not 0/1, a
            row has no label, the first picture is not where its path says, the split does not fit.
    """
    root = dataset_folder(config.root, "the .mat files")
    if config.on_unlabelled not in ("error", "drop", "keep"):
        raise UserError(
            f"dataset.on_unlabelled={config.on_unlabelled}: 'error', 'drop' or 'keep' is needed."
        )
    images = _images(config, root)
    caption_file = _caption_file(config, root)
    texts = read_captions(_existing(root, caption_file, "caption_file"), len(images))
    labels = _labels(_existing(root, config.label_file, "label_file"), len(images))
    second = _second_captions(config, root, len(images))
    counts = {
        config.index_file: len(images),
        caption_file: len(texts),
        config.label_file: len(labels),
        **({str(config.second_caption_file): len(second)} if second is not None else {}),
    }
    if len(set(counts.values())) > 1:
        lengths = ", ".join(f"{file} has {count}" for file, count in counts.items())
        raise UserError(f"The files in '{root}' differ in length: {lengths} rows; they must agree.")
    unlabelled = np.flatnonzero(labels.sum(1) == 0)
    if len(unlabelled) and config.on_unlabelled != "keep":
        if config.on_unlabelled == "error":
            raise UserError(
                f"'{root / config.label_file}': {len(unlabelled)} of {len(labels)} rows carry no "
                f"label, row {unlabelled[0]} first; dataset.on_unlabelled=drop leaves them out, "
                "keep lets them stay, relevant to no query."
            )
        labelled = np.setdiff1d(np.arange(len(labels)), unlabelled)
        labels, texts = labels[labelled], [texts[row] for row in labelled]
        second = None if second is None else [second[row] for row in labelled]
        if isinstance(images, FileImages):
            images = images.take(labelled)
        else:
            images = SelectedImages(images, labelled)
    auxiliary = {}
    if second is not None:
        source = f"captions of pictures, in '{config.second_caption_file}'"
        rows = np.arange(len(second))
        auxiliary["second"] = AuxiliaryInputs(rows, source, second, parts=WITHOUT_QUERIES)
    check_stated(config.protocol, labels, {})
    split = make_split(config.split, labels, root=root)
    check_stated(config.protocol, labels, split.counts)
    return HashDataset(
        name=name,
        images=images,
        labels=labels,
        class_names=_class_names(config, root, labels.shape[1]),
        multi_label=bool((labels.sum(1) > 1).any()),
        split=split,
        texts=texts,
        auxiliary=auxiliary,
    )


def _existing(root: Path, file: str, key: str) -> Path:
    """Return the path of ``file``, which must exist."""
    path = root / Path(file).expanduser()
    check_plain_file(path)
    if path.is_file():
        return path
    others = sorted(p.name for p in path.parent.glob(f"{path.stem}*") if p.is_file())
    hint = f"; dataset.{key}={others[0]} may be meant" if others else ""
    raise UserError(f"'{path}' does not exist (dataset.{key}){hint}.")


def _caption_file(config: MatConfig, root: Path) -> str:
    """Return the file of captions: the configured one, or ``caption.txt`` where only that is."""
    absent = config.caption_file == CAPTIONS and not (root / CAPTIONS).is_file()
    return CAPTION_LINES if absent and (root / CAPTION_LINES).is_file() else config.caption_file


def _labels(path: Path, n_rows: int) -> np.ndarray:
    """Read labels as float32 [n,C]."""
    values = read_variable(path, LABEL_KEYS)
    if values.ndim == 2 and values.shape[0] != n_rows == values.shape[1] and is_hdf5(path):
        values = values.T  # an HDF5 file not written by MATLAB, hence not in its order
    if values.shape == (1, n_rows):
        values = values.T  # a row of class numbers
    return read_labels(values, f"'{path}'")


def read_captions(
    path: Path, n_rows: int, keys: tuple[str, ...] = CAPTION_KEYS
) -> list[tuple[str, ...]]:
    """Read the captions of every row, blanks stripped, from ``.mat`` or ``.txt``.

    Raises:
        UserError: a file that cannot be read, or holds no text.
    """
    if path.suffix.lower() == ".txt":
        return [(line.strip(),) for line in _lines(path)]
    return strings_per_row(read_variable(path, keys, text=True), n_rows, path)


def _second_captions(config: MatConfig, root: Path, n_rows: int) -> list[str] | None:
    """Read the first caption of every row that was made from its picture, if there are any."""
    file = config.second_caption_file
    if file is None or (file == SECOND_CAPTIONS and not (root / file).is_file()):
        return None
    path = _existing(root, file, "second_caption_file")
    return [captions[0] for captions in read_captions(path, n_rows, SECOND_KEYS)]


def _lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file, without their ends."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not UTF-8 text ({error}).") from error
    return lines[:-1] if lines[-1] == "" else lines


def _images(config: MatConfig, root: Path) -> ImageSource:
    """Return the images that the index file names or holds."""
    path = _existing(root, config.index_file, "index_file")
    if path.suffix.lower() == ".npy":
        return _array_images(path)
    image_root = Path(config.image_root).expanduser() if config.image_root else root
    if not image_root.is_absolute() and config.image_root and not image_root.is_dir():
        image_root = root / image_root
    names = read_picture_names(path)
    if config.image_root or PureWindowsPath(names[0]).root:  # of Windows or of any other system
        names = _local_names(names, image_root)
    images = FileImages(names, image_root, colour=config.colour or "as_seen")
    images.check_first(path)
    return images


def read_picture_names(path: Path) -> list[str]:
    """Return the paths of pictures in an index file, as it states them, blanks stripped.

    Raises:
        UserError: a file that cannot be read, or a row without a path.
    """
    names = [name.strip() for name in _strings(read_variable(path, INDEX_KEYS, text=True), 0, path)]
    if "" in names or not names:
        position = f"row {names.index('')} has none" if names else "it has none"
        raise UserError(f"'{path}' must hold a path of a picture in every row, but {position}.")
    return names


def _local_names(names: list[str], image_root: Path) -> list[str]:
    """Return paths that start at ``image_root``, also when ``names`` are another machine's.

    The first of ``names`` that has an ending which exists below ``image_root`` decides how many
    leading folders are removed from all of them: as few as lead to a picture.
    """
    for name in names[:TRIED]:
        if (image_root / name).is_file():
            return names
        parts = _parts(name)
        for lead in range(1, len(parts)):
            if image_root.joinpath(*parts[lead:]).is_file():
                log.info(
                    "pictures: '%s' is read as '%s', the other paths likewise",
                    name, image_root.joinpath(*parts[lead:]),
                )  # fmt: skip
                return [str(Path(*_parts(name)[lead:])) for name in names]
    return names


def _parts(name: str) -> tuple[str, ...]:
    """Return the parts of a path; Windows' separators count where the path has no others."""
    return PureWindowsPath(name).parts if "/" not in name else Path(name).parts


def _array_images(path: Path) -> ArrayImages:
    """Return the images of a ``.npy`` file, memory-mapped."""
    try:
        check_numpy(path)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"'{path}' cannot be read as a .npy array ({error}).") from error
    if array.ndim == 4 and array.shape[1] == 3 and array.shape[3] != 3:
        array = array.transpose(0, 2, 3, 1)  # [n,3,H,W] -> [n,H,W,3]
    if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8:
        raise UserError(
            f"'{path}' is {array.dtype} of shape {array.shape}; pictures as uint8 [n,H,W,3] are "
            "needed."
        )
    return ArrayImages(array, content_digest(path))


def _class_names(config: MatConfig, root: Path, n_classes: int) -> tuple[str, ...]:
    """Return the names in ``class_names_file``, or ``class 0``, ``class 1``, … without one."""
    file = config.class_names_file
    if file is None or (file == _CLASS_NAMES and not (root / file).is_file()):
        return tuple(f"class {c}" for c in range(n_classes))
    path = _existing(root, file, "class_names_file")
    names = read_names(path)
    if len(names) != n_classes:
        raise UserError(
            f"'{path}' names {len(names)} classes, but the labels have {n_classes} columns."
        )
    return names


def strings_per_row(array: np.ndarray, n_rows: int, path: Path) -> list[tuple[str, ...]]:
    """Return the strings of each row, without the blanks at their ends that .mat files pad with.

    Accepted for n rows: n strings in any orientation; n cells, each a string, an array of strings
    or nested cells; a matrix [n,k] of k strings per row; one cell around any of these. A row of
    blanks only gives one empty string. ``n_rows`` decides which axis counts where both could. Empty
    strings of a matrix are padding and left out; a cell has as many strings as it has captions.

    Raises:
        UserError: something in it is not text.
    """
    while array.dtype == object and array.size == 1 and n_rows != 1:
        array = np.asarray(array.reshape(-1)[0])
    if array.ndim == 2 and array.shape[0] == 1 and n_rows != 1:
        array = array[0]  # (1,n) -> n rows
    if array.ndim == 0:
        array = array.reshape(1)
    rows = []
    for row, cell in enumerate(array):
        strings = [string.rstrip() for string in _strings(cell, row, path)]
        rows.append(tuple(strings if array.dtype == object else filter(None, strings)) or ("",))
    return rows


def _strings(cell: Any, row: int, path: Path) -> Iterator[str]:
    """Yield all strings in ``cell``, however nested."""
    if isinstance(cell, str):
        yield cell
    elif isinstance(cell, bytes):
        yield cell.decode("utf-8", errors="replace")
    elif isinstance(cell, (np.ndarray, list, tuple)):
        for inner in np.asarray(cell).reshape(-1):
            yield from _strings(inner, row, path)
    else:
        raise UserError(f"'{path}': row {row} holds {type(cell).__name__} where text is needed.")
