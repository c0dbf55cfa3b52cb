"""Read the files that datasets publish; a missing or broken one raises a UserError."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.files import check_plain_file


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, stripped; blank ones at its end are left out.

    Invalid UTF-8 is replaced: tags that users typed contain some.

    Raises:
        UserError: it is missing or cannot be read.
    """
    check_plain_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise _unreadable(path, error) from error
    lines = [line.strip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def read_names(path: Path) -> tuple[str, ...]:
    """Return the names in a text file, one a line; blank lines are left out.

    Raises:
        UserError: it is missing or cannot be read.
    """
    return tuple(line for line in read_lines(path) if line)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        UserError: it is missing, cannot be read, or holds no object.
    """
    check_plain_file(path)
    try:
        with open(path, encoding="utf-8") as stream:
            value = json.load(stream)
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(value, dict):
        raise UserError(f"'{path}' holds a JSON {type(value).__name__}; an object is needed.")
    return value


def read_bits(path: Path) -> np.ndarray:
    """Return a column of 0 and 1, one a line, as uint8 [n].

    Raises:
        UserError: it is missing, or holds something else.
    """
    check_plain_file(path)
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise _unreadable(path, error) from error
    bits = data[(data == ord("0")) | (data == ord("1"))]
    lines = np.count_nonzero(data == ord("\n")) + (data[-1:] != ord("\n")).sum()
    if not np.isin(data, np.frombuffer(b"01\r\n \t", np.uint8)).all() or len(bits) != lines:
        raise UserError(f"'{path}' holds something else than one 0 or 1 a line.")
    return bits - ord("0")


def row_number(word: str, path: Path, line: int) -> int:
    """Return ``word``, read from ``line`` (counted from 0) of ``path``, as a number from 0.

    Raises:
        UserError: it is no such number; names file and line.
    """
    if not (word.isascii() and word.isdigit()):
        raise UserError(f"'{path}' line {line + 1}: '{word[:40]}' is no row number.")
    return int(word)


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Return the first word and the rest of every line; ``7 has_bill_shape::hooked`` and the like.

    Raises:
        UserError: it is missing, cannot be read, or a line (named) has one word only.
    """
    pairs = []
    for number, line in enumerate(read_lines(path), 1):
        words = line.split(None, 1)
        if len(words) < 2:
            raise UserError(f"'{path}' line {number}: '{line[:40]}' is not a number and a name.")
        pairs.append((words[0], words[1]))
    return pairs


def read_matrix(path: Path, columns: int) -> np.ndarray:
    """Return a table of numbers, separated by blanks, as float32 [n,columns].

    Raises:
        UserError: it is missing, holds something else, or has another number of columns.
    """
    check_plain_file(path)
    try:
        values = np.loadtxt(path, dtype=np.float32, ndmin=2)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if values.shape[1] != columns:
        raise UserError(f"'{path}' has {values.shape[1]} columns; {columns} are needed.")
    return values


def dataset_folder(root: str, content: str) -> Path:
    """Return the folder ``dataset.root``, which holds ``content``.

    Raises:
        UserError: it is not set, or is no folder.
    """
    if not root:
        raise UserError(f"dataset.root is not set; give the folder that holds {content}.")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"dataset.root: '{folder}' is not a folder.")
    return folder


def one_hot(numbers: Sequence[int] | np.ndarray, classes: int) -> np.ndarray:
    """Return uint8 [n,classes] with a 1 in each row, at ``numbers`` (from 0)."""
    labels = np.zeros((len(numbers), classes), np.uint8)
    labels[np.arange(len(numbers)), np.asarray(numbers, np.int64)] = 1
    return labels


def cell_words(cells: np.ndarray) -> list[str]:
    """Return the text of every cell of a MATLAB cell array, in order."""
    return [str(np.asarray(cell).ravel()[0]).strip() for cell in cells.ravel()]


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = "does not exist" if isinstance(error, FileNotFoundError) else f"is broken ({error})"
    return UserError(f"'{path}' {reason}; put the official file there.")
