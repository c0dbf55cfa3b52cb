"""CIFAR's binary files: records of a few label bytes and 32 x 32 pixels, plane by plane."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.storage.contents import content_digests
from dataset.base import BadImageError, ImageSource
from dataset.preparation.rows import Rows
from dataset.preparation.source import RowKind, Source
from dataset.tables import one_hot, read_lines
from utils.errors import UserError
from utils.files import digest

SIDE = 32
PIXELS = 3 * SIDE * SIDE
_SEPARATOR = "#"  # file name # number of the record


class RecordSource(Source):
    """A dataset in such files; the last label byte of a record is its class.

    Attributes:
        record_files: below the root; the last one holds the test images.
        names_file: one class a line.
        label_bytes: before each image.
    """

    licence = "none stated by its publisher; pictures from the web"
    record_files: tuple[str, ...]
    names_file: str
    label_bytes: int
    row_kind = RowKind(side=SIDE)

    def read(self, root: Path) -> Rows:
        """Read the labels of all records, file by file."""
        names = tuple(line for line in read_lines(root / self.names_file) if line)
        paths: list[str] = []
        labels = []
        for name in self.record_files:
            labels.append(_classes(root / name, self.label_bytes))
            paths += [f"{name}{_SEPARATOR}{number}" for number in range(len(labels[-1]))]
        classes = np.concatenate(labels)
        if int(classes.max()) >= len(names):
            raise UserError(
                f"'{root}' has pictures of class {int(classes.max())}, but '{self.names_file}' "
                f"names {len(names)} classes; unpack {self.files[0].name} again."
            )
        test = np.arange(len(paths)) >= len(paths) - len(labels[-1])
        return Rows(
            keys=tuple(path.rpartition("/")[2].replace(".bin", "") for path in paths),
            paths=tuple(paths),
            labels=one_hot(classes, len(names)),
            class_names=names,
            subsets={"train": ~test, "test": test},
        )

    def images(self, root: Path, paths: Sequence[str]) -> ImageSource:
        """Return the images in the records."""
        return RecordImages(root, paths, self.label_bytes)


def _classes(file: Path, label_bytes: int) -> np.ndarray:
    """Return the class of every record, uint8 [n].

    Raises:
        UserError: the file is missing, or ends within a record.
    """
    try:
        data = np.fromfile(file, np.uint8)
    except OSError as error:
        raise UserError(f"'{file}' cannot be read ({error}); unpack it again.") from error
    if len(data) == 0 or len(data) % (label_bytes + PIXELS):
        raise UserError(
            f"'{file}' has {len(data):,} bytes, no whole number of records of "
            f"{label_bytes + PIXELS:,}; it is cut short: unpack it again."
        )
    return data.reshape(-1, label_bytes + PIXELS)[:, label_bytes - 1].copy()


class RecordImages:
    """Images in records, read one by one."""

    def __init__(self, root: Path, paths: Sequence[str], label_bytes: int) -> None:
        """Take the paths of N images, ``folder/file.bin#number``; nothing is opened yet."""
        self.root, self.paths, self.label_bytes = root, tuple(paths), label_bytes

    def __len__(self) -> int:
        return len(self.paths)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of all paths, and of the content of the files."""
        names = sorted({path.rpartition(_SEPARATOR)[0] for path in self.paths})
        return digest("\n".join(self.paths), *content_digests([self.root / n for n in names]))

    def decode(self, row: int) -> np.ndarray:
        """Return the image of ``row``, RGB uint8 [32,32,3].

        Raises:
            BadImageError: the file is missing or too short; names it.
        """
        name, _, number = self.paths[row].rpartition(_SEPARATOR)
        try:
            with open(self.root / name, "rb") as stream:
                stream.seek(int(number) * (self.label_bytes + PIXELS) + self.label_bytes)
                data = stream.read(PIXELS)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BadImageError(f"'{self.name(row)}': the file does not exist.") from error
        if len(data) < PIXELS:
            raise BadImageError(f"'{self.name(row)}': the file is cut short.")
        planes = np.frombuffer(data, np.uint8).reshape(3, SIDE, SIDE)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))

    def name(self, row: int) -> str:
        """Return the file and the number of the record."""
        return str(self.root / self.paths[row])
