"""xlsa17: the proposed splits of Xian et al., TPAMI 2019, for the zero-shot datasets.

``att_splits.mat`` also states the class attributes (``original_att`` [A,C], its columns named by
``allclasses_names``) and marks rows (``trainval_loc``, ``test_seen_loc``, ``test_unseen_loc``,
numbered from 1). It names no image: its rows are those of xlsa17's features, in the order in which
each dataset lists its images. A file that does not fit this order is refused: the three parts must
be disjoint and hold every row, and the unseen part must be all rows of its classes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataset.preparation.rows import Attributes
from dataset.preparation.source import OfficialFile
from dataset.tables import cell_words
from utils.errors import UserError
from utils.mat_file import read_variables

PARTS = ("trainval", "test_seen", "test_unseen")
CLASS_SET = "proposed"
"""Name of the set of classes that may be trained on."""

_PATHS = ("xlsa17/data/{}/att_splits.mat", "xlsa17/{}/att_splits.mat", "{}/att_splits.mat")


def archive(folder: str) -> OfficialFile:
    """Return the file with the splits of the dataset that xlsa17 calls ``folder``."""
    return OfficialFile(
        "xlsa17.zip",
        unpacks=("|".join(path.format(folder) for path in _PATHS),),
        url="http://datasets.d2.mpi-inf.mpg.de/xian/xlsa17.zip",
        page="https://www.mpi-inf.mpg.de/zsl-benchmark",
        needed=False,
    )


def _find(root: Path, folder: str) -> Path | None:
    """Return the file with the splits of ``folder``, or None."""
    paths = (root / path.format(folder) for path in _PATHS)
    return next((path for path in paths if path.is_file()), None)


def subsets(root: Path, folder: str, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return trainval, test_seen and test_unseen, each bool [N]; nothing without a file.

    Args:
        root: the dataset's folder.
        folder: xlsa17's name of the dataset.
        labels: uint8 [N,C], one class a row, in the order of the file.

    Raises:
        UserError: the file is broken, or its rows are not those of ``labels``.
    """
    file = _find(root, folder)
    if file is None:
        return {}
    variables = read_variables(file, tuple(f"{part}_loc" for part in PARTS))
    parts = {}
    for part in PARTS:
        if f"{part}_loc" not in variables:
            raise UserError(f"'{file}' lacks {part}_loc; put the published file there.")
        rows = variables[f"{part}_loc"].astype(np.int64).ravel()
        if len(rows) == 0 or rows.min() < 1 or rows.max() > len(labels):
            raise UserError(
                f"'{file}' marks rows {rows.min(initial=0)} to {rows.max(initial=0)} as {part}, "
                f"but the dataset has rows 1 to {len(labels)}; one of the two is not complete."
            )
        parts[part] = np.zeros(len(labels), bool)
        parts[part][rows - 1] = True
    times = np.sum(list(parts.values()), axis=0)
    unseen = labels[parts["test_unseen"]].any(0)
    if (times != 1).any() or not np.array_equal(labels[:, unseen].any(1), parts["test_unseen"]):
        raise UserError(
            f"'{file}' does not fit the order of the pictures: {int((times != 1).sum())} rows are "
            "in no part or in two, or classes are unseen in part; pictures are missing, or the "
            "file belongs to another release."
        )
    return parts


def class_sets(
    parts: dict[str, np.ndarray], labels: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Return the classes that may be trained on under :data:`CLASS_SET`; nothing without marks."""
    if not parts:
        return {}
    seen = labels[parts["trainval"]].any(0)
    names = tuple(name for name, is_seen in zip(class_names, seen.tolist(), strict=True) if is_seen)
    return {CLASS_SET: names}


def statements(
    root: Path, folder: str, official: Attributes, scale: float
) -> tuple[Attributes, ...]:
    """Return the publisher's attributes and xlsa17's, unless these are others (of CUB's sentences).

    Args:
        root: the dataset's folder.
        folder: xlsa17's name of the dataset.
        official: the publisher's attributes.
        scale: divisor of xlsa17's numbers.

    Raises:
        UserError: xlsa17's file is broken.
    """
    file, keys = _find(root, folder), ("allclasses_names", "original_att")
    variables = read_variables(file, keys, text=True) if file is not None else {}
    values = variables.get("original_att")
    if len(variables) < len(keys) or values is None or len(values) != len(official.names):
        return (official,)
    classes = tuple(cell_words(variables["allclasses_names"]))
    values = (values.T / scale).astype(np.float32)
    return official, Attributes(classes, official.names, values)
