"""Published list files: one row a line, with its path and its label bits.

``path 0 1 0 …`` (DeepHash-pytorch, HashNet), or with tabs ``path⇥0 1 0 …⇥…⇥features`` (PZSH, which
reads the first and the second field and, of three or more, the last). Tabs may also separate the
bits. A path may hold blanks: it ends before the numbers at the end of the line. Lines of one number
each, all of them, have class numbers. Either may be a ``.gz``. PZSH
skips lines of too few fields, fewer than three where it trains and fewer than two elsewhere.
"""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import logging
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from dataset.label_reader import MOST_CLASSES, read_labels
from utils.errors import UserError

log = logging.getLogger("hashing")
SUFFIXES = ("", ".gz")
MOST_CHARACTERS = 1 << 20  # of a line: 768 numbers take 20,000


@dataclasses.dataclass(frozen=True)
class ListedRows:
    """The rows of one list file, in its order; n rows, C labels, D features.

    Attributes:
        paths: n paths, as the file states them, without ``./`` and double slashes.
        labels: uint8 [n,C].
        features: float32 [n,D], or None.
        file: the list file.
        numbered: whether the file has class numbers; C is then one more than the greatest.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    features: np.ndarray | None
    file: Path
    numbered: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, lines: np.ndarray) -> ListedRows:
        """Return some of the rows, in the given order."""
        features = None if self.features is None else self.features[lines]
        paths = tuple(self.paths[line] for line in lines)
        return ListedRows(paths, self.labels[lines], features, self.file, self.numbered)


def find_list(folders: Sequence[Path], name: str) -> Path | None:
    """Return the first of ``folders/name`` and ``folders/name.gz`` that exists, or None."""
    candidates = (folder / f"{name}{suffix}" for folder in folders for suffix in SUFFIXES)
    return next((file for file in candidates if file.is_file()), None)


def read_list(file: Path, fields: int = 0) -> ListedRows:
    """Read a list file.

    Args:
        file: to read.
        fields: where the file has tabs, lines of fewer fields are left out, and counted in the log;
            of lines that need no third field none has features unless all have.

    Raises:
        UserError: the file cannot be read, holds no row, or a line (named) lacks its labels, has
            another number of them than the first line, or holds something else than 0 and 1.
    """
    lines = list(_lines(file))
    if fields and any("\t" in line for _, line in lines):
        complete = [(n, line) for n, line in lines if line.count("\t") + 1 >= fields]
        if len(complete) < len(lines):
            log.warning(
                "'%s': %d of %d lines have fewer than %d fields and are left out",
                file, len(lines) - len(complete), len(lines), fields,
            )  # fmt: skip
        lines = complete
    if not lines:
        raise UserError(f"List file '{file}' holds no row.")
    split = [_fields(line) for _, line in lines]
    numbered = all(numbers is None and bits.isdecimal() for _, bits, numbers in split)
    paths, labels, features = [], [], []
    for (number, line), (path, bits, numbers) in zip(lines, split, strict=True):
        location = f"'{file}' line {number}"
        row = _class_number(bits) if numbered else _bits(bits)
        if row is None or not path:
            raise UserError(
                f"{location}: '{line[:60]}' is not understood; a path and label bits of 0 and 1 "
                f"are needed, or one class number below {MOST_CLASSES:,} in every line."
            )
        paths.append(PurePosixPath(path).as_posix())
        labels.append(row)
        if len(row) != len(labels[0]):
            raise UserError(
                f"{location}: {len(row)} labels, but the first line has {len(labels[0])}; all "
                "lines need the same number."
            )
        features.append(_numbers(numbers, location) if numbers is not None else None)
    some_lack = 0 < fields < 3 and any(row is None for row in features)
    stacked = None if some_lack else _stack(features, file)
    array = np.stack(labels)
    if numbered:
        array = read_labels(array[:, 0], f"'{file}'").astype(np.uint8)
    return ListedRows(tuple(paths), array, stacked, file, numbered)


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
    """Return path, label bits (or the class number) and features (None without)."""
    if "\t" in line:
        path, *rest = line.split("\t")
        if len(rest) > 1 and all(field.strip() in ("0", "1", "") for field in rest):
            return path.strip(), " ".join(rest), None  # tabs between the bits
        return path.strip(), rest[0].strip(), rest[-1] if len(rest) > 1 else None
    words = line.split(" ")
    numbers = list(itertools.takewhile(lambda word: not word or word.isdecimal(), words[::-1]))
    path = " ".join(words[: len(words) - len(numbers)])
    return path.strip(), " ".join(numbers[::-1]).strip(), None


def _class_number(text: str) -> np.ndarray | None:
    """Return ``"7"`` as int64 [1], or None where it is too great."""
    fits = len(text) < 10 and int(text) < MOST_CLASSES
    return np.array([int(text)]) if fits else None


def _bits(text: str) -> np.ndarray | None:
    """Return ``"0 1 1"`` as uint8 [3], or None for any other text."""
    words = text.split()
    joined = "".join(words).encode()
    row = np.frombuffer(joined, np.uint8) - ord("0")  # wraps around for what is no digit
    return row if words and len(row) == len(words) and int(row.max()) <= 1 else None


def _numbers(text: str, location: str) -> np.ndarray:
    try:
        return np.array(text.split(), dtype=np.float32)
    except ValueError as error:
        raise UserError(f"{location}: its last field is no list of numbers ({error}).") from error


def _stack(features: list[np.ndarray | None], file: Path) -> np.ndarray | None:
    rows = [row for row in features if row is not None]
    if not rows:
        return None
    if len({len(row) for row in rows}) > 1 or len(rows) < len(features):
        raise UserError(f"List file '{file}': not every line has the same number of features.")
    return np.stack(rows)
