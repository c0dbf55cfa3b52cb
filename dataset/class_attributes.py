"""Class attributes from a file: a user's table, or the three tables that AwA publishes.

CSV: a header, then a row per class; the column ``class`` names it, every other column is an
attribute with a number for each class. ``.tsv`` files are split at tabs.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from dataset.preparation.rows import Attributes
from dataset.tables import read_matrix, read_pairs
from utils.errors import UserError
from utils.files import check_plain_file

CLASS_COLUMN = "class"
_CLASSES, _NAMES, _VALUES = "classes.txt", "predicates.txt", "predicate-matrix-continuous.txt"


def read_class_attributes(path: Path) -> Attributes:
    """Read a CSV, or a folder with AwA's tables.

    Raises:
        UserError: it is neither, or a row is broken (named by line).
    """
    return awa_attributes(path) if path.is_dir() else _read_csv(path)


def awa_attributes(folder: Path) -> Attributes:
    """Read ``classes.txt``, ``predicates.txt`` and the continuous matrix, 0..100 divided by 100.

    Raises:
        UserError: a file is missing or broken.
    """
    classes = tuple(name for _, name in read_pairs(folder / _CLASSES))
    names = tuple(name for _, name in read_pairs(folder / _NAMES))
    return Attributes(classes, names, read_matrix(folder / _VALUES, len(names)) / 100)


def _read_csv(path: Path) -> Attributes:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    check_plain_file(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream, delimiter=delimiter, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"'{path}' cannot be read as a table of class attributes ({error}); give a UTF-8 CSV "
            f"with a column '{CLASS_COLUMN}', or a folder with {_CLASSES}, {_NAMES}, {_VALUES}."
        ) from error
    header = rows[0] if rows else []
    if CLASS_COLUMN not in header or len(header) < 2:
        raise UserError(
            f"'{path}' line 1: a column '{CLASS_COLUMN}' and a column for each attribute are "
            f"needed; columns: {', '.join(header) or 'none'}."
        )
    class_column = header.index(CLASS_COLUMN)
    classes, values = [], []
    for number, cells in enumerate(rows[1:], 2):
        if not cells:
            continue
        try:
            if len(cells) != len(header):
                raise ValueError(f"{len(cells)} cells under {len(header)} columns")
            numbers = [float(cell) for c, cell in enumerate(cells) if c != class_column]
            if not np.isfinite(numbers).all():
                raise ValueError("a number is not finite")
        except ValueError as error:
            raise UserError(f"'{path}' line {number}: {error}; a number is needed.") from error
        classes.append(cells[class_column].strip())
        values.append(numbers)
    names = tuple(name.strip() for c, name in enumerate(header) if c != class_column)
    return Attributes(tuple(classes), names, np.array(values, np.float32).reshape(-1, len(names)))
