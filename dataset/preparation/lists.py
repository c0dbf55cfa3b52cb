"""Published list files: one row a line, with its path and its label bits.

``path 0 1 0 …`` (DeepHash-pytorch, HashNet), or with tabs ``path⇥0 1 0 …⇥…⇥features`` (PZSH, which
reads the first, the second and, where there are more, the last field). Either may be a ``.gz``.
"""

from __future__ import annotations

import dataclasses
import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from utils.errors import UserError

SUFFIXES = ("", ".gz")
MOST_CHARACTERS = 1 << 20  # of a line: 768 numbers take 20,000


@dataclasses.dataclass(frozen=True)
class ListedRows:
    """The rows of one list file, in its order; n rows, C labels, D features.

    Attributes:
        paths: n paths, as they stand there.
        labels: uint8 [n,C].
        features: float32 [n,D], or None.
        file: where they were read.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    features: np.ndarray | None
    file: Path

    def __len__(self) -> int:
        return len(self.paths)


def find_list(folders: Sequence[Path], name: str) -> Path | None:
    """Return the first of ``folders/name`` and ``folders/name.gz`` that is there, or None."""
    places = (folder / f"{name}{suffix}" for folder in folders for suffix in SUFFIXES)
    return next((place for place in places if place.is_file()), None)


def read_list(file: Path) -> ListedRows:
    """Read a list file.

    Raises:
        UserError: the file cannot be read, holds no row, or a line (named) lacks its labels, has
            another number of them than the first line, or holds something else than 0 and 1.
    """
    paths, labels, features = [], [], []
    for number, line in _lines(file):
        where = f"'{file}' line {number}"
        path, bits, numbers = _fields(line)
        row = _bits(bits)
        if row is None or not path:
            raise UserError(
                f"{where}: '{line[:60]}' is not understood; a path and label bits of 0 and 1 are "
                "needed."
            )
        paths.append(path)
        labels.append(row)
        if len(row) != len(labels[0]):
            raise UserError(
                f"{where}: {len(row)} labels, but the first line has {len(labels[0])}; all lines "
                "need the same number."
            )
        features.append(_numbers(numbers, where) if numbers is not None else None)
    if not paths:
        raise UserError(f"List file '{file}' holds no row.")
    return ListedRows(tuple(paths), np.stack(labels), _stack(features, file), file)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield (1-based number, line) of all lines that are not blank."""
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8-sig") as stream:
            number = 0
            while line := stream.readline(MOST_CHARACTERS):
                number += 1
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise UserError(f"List file '{file}' cannot be read ({error}).") from error


def _fields(line: str) -> tuple[str, str, str | None]:
    """Return path, label bits and, where there are any, features."""
    if "\t" in line:
        path, *rest = line.split("\t")
        return path.strip(), rest[0], rest[-1] if len(rest) > 1 else None
    path, _, bits = line.strip().partition(" ")
    return path, bits, None


def _bits(text: str) -> np.ndarray | None:
    """Return ``"0 1 1"`` as uint8 [3], or None if it is anything else."""
    words = text.split()
    joined = "".join(words).encode()
    row = np.frombuffer(joined, np.uint8) - ord("0")  # wraps around for what is no digit
    return row if words and len(row) == len(words) and int(row.max()) <= 1 else None


def _numbers(text: str, where: str) -> np.ndarray:
    try:
        return np.array(text.split(), dtype=np.float32)
    except ValueError as error:
        raise UserError(f"{where}: its last field is no list of numbers ({error}).") from error


def _stack(features: list[np.ndarray | None], file: Path) -> np.ndarray | None:
    there = [row for row in features if row is not None]
    if not there:
        return None
    if len({len(row) for row in there}) > 1 or len(there) < len(features):
        raise UserError(f"List file '{file}': not every line has the same number of features.")
    return np.stack(there)
