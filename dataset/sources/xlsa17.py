"""xlsa17: the proposed splits of Xian et al., TPAMI 2019, for the zero-shot datasets.

``att_splits.mat`` states the class attributes once more (``original_att`` [A,C], its columns named
by ``allclasses_names``) and marks rows (``trainval_loc``, ``test_seen_loc``, ``test_unseen_loc``,
numbered from 1). It names no picture: its rows are those of the features beside it. The order of
the pictures is the one in which each dataset lists them, and a file that does not fit it is
refused: the three parts have to be disjoint, to hold every row, and the unseen part to be all rows
of its classes.
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

_PLACES = ("xlsa17/data/{}/att_splits.mat", "xlsa17/{}/att_splits.mat", "{}/att_splits.mat")


def archive(folder: str) -> OfficialFile:
    """Return the file that holds the splits of the dataset which xlsa17 calls ``folder``."""
    return OfficialFile(
        "xlsa17.zip",
        unpacks=("|".join(place.format(folder) for place in _PLACES),),
        url="http://datasets.d2.mpi-inf.mpg.de/xian/xlsa17.zip",
        page="https://www.mpi-inf.mpg.de/zsl-benchmark",
        needed=False,
    )


def find(root: Path, folder: str) -> Path | None:
    """Return where the splits of ``folder`` lie, or None."""
    places = (root / place.format(folder) for place in _PLACES)
    return next((place for place in places if place.is_file()), None)


def subsets(file: Path | None, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return trainval, test_seen and test_unseen, each bool [N]; nothing without a file.

    Args:
        file: an ``att_splits.mat``.
        labels: uint8 [N,C], one class a row, in the order that the file counts in.

    Raises:
        UserError: the file is broken, or marks other rows than these can be.
    """
    if file is None:
        return {}
    found = read_variables(file, tuple(f"{part}_loc" for part in PARTS))
    marked = {}
    for part in PARTS:
        if f"{part}_loc" not in found:
            raise UserError(f"'{file}' lacks {part}_loc; put the published file there.")
        rows = found[f"{part}_loc"].astype(np.int64).ravel()
        if len(rows) == 0 or rows.min() < 1 or rows.max() > len(labels):
            raise UserError(
                f"'{file}' marks rows {rows.min(initial=0)} to {rows.max(initial=0)} as {part}, "
                f"but the dataset has rows 1 to {len(labels)}; one of the two is not complete."
            )
        marked[part] = np.zeros(len(labels), bool)
        marked[part][rows - 1] = True
    times = np.sum(list(marked.values()), axis=0)
    unseen = labels[marked["test_unseen"]].any(0)
    if (times != 1).any() or not np.array_equal(labels[:, unseen].any(1), marked["test_unseen"]):
        raise UserError(
            f"'{file}' does not fit the order of the pictures: {int((times != 1).sum())} rows are "
            "in no part or in two, or classes are unseen in part; pictures are missing, or the "
            "file belongs to another release."
        )
    return marked


def class_sets(
    marked: dict[str, np.ndarray], labels: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Return the classes that may be trained on under :data:`CLASS_SET`; nothing without marks."""
    if not marked:
        return {}
    seen = labels[marked["trainval"]].any(0)
    names = tuple(name for name, own in zip(class_names, seen.tolist(), strict=True) if own)
    return {CLASS_SET: names}


def statements(file: Path | None, names: tuple[str, ...], scale: float) -> tuple[Attributes, ...]:
    """Return the attributes that the file states; none where it holds others (CUB's sentences).

    Args:
        file: an ``att_splits.mat``, or None.
        names: A names of attributes.
        scale: what its numbers are divided by.

    Raises:
        UserError: the file is broken.
    """
    if file is None:
        return ()
    keys = ("allclasses_names", "original_att")
    found = read_variables(file, keys, text=True)
    values = found.get("original_att")
    if len(found) < len(keys) or values is None or len(values) != len(names):
        return ()
    classes = tuple(cell_words(found["allclasses_names"]))
    return (Attributes(classes, names, (values.T / scale).astype(np.float32)),)
