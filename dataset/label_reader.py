"""Labels of any entrance as 0/1 columns: what an array of numbers is taken for, and told to be."""

from __future__ import annotations

import logging

import numpy as np

from dataset.tables import one_hot
from utils.errors import UserError

MOST_CLASSES = 2**16
log = logging.getLogger("hashing")


def read_labels(values: np.ndarray, where: str, n_names: int = 0) -> np.ndarray:
    """Return labels as float32 [N,C], and tell what they were taken for.

    Args:
        values: [N,C] of 0/1; or class numbers ≥ 0, [N] or [N,1]; of any real dtype.
            [N,1] of nothing but 1 is one class, of all rows.
        where: what the labels are of, for messages: ``'file'``.
        n_names: number of class names, the least number of classes; 0: unknown.

    Raises:
        UserError: another shape or other values, or class numbers from MOST_CLASSES on.
    """
    shape = values.shape
    if values.ndim == 2 and shape[1] == 1 and not (values == 1).all():
        values = values[:, 0]
    if values.ndim not in (1, 2) or values.dtype.kind not in "biuf" or 0 in shape:
        raise UserError(
            f"{where}: labels are {values.dtype} of shape {shape}; a matrix of 0 and 1 [N,C], or "
            "[N] numbers of classes from 0 are needed."
        )
    if values.ndim == 2:
        wrong = np.argwhere((values != 0) & (values != 1))
        if len(wrong):
            row, column = wrong[0]
            raise UserError(
                f"{where}: labels of shape {shape} must be 0 or 1, but row {row}, column {column} "
                f"is {values[row, column]} ({len(wrong)} such entries); numbers of classes are "
                "given as [N]."
            )
        one_each = bool((values.sum(1) == 1).all())
        log.info("%s: labels are %d columns of 0/1%s", where, shape[1], ", one-hot" * one_each)
        return np.ascontiguousarray(values, dtype=np.float32)
    whole = np.isfinite(values) & (values >= 0) & (values == np.floor(values))
    if not whole.all() or values.max() >= MOST_CLASSES:
        first = int(np.argmin(whole & (values < MOST_CLASSES)))
        raise UserError(
            f"{where}: labels of shape {shape} are taken for class numbers, but row {first} is "
            f"{values[first]}; whole numbers of classes from 0 are needed, below {MOST_CLASSES:,}."
        )
    numbers = values.astype(np.int64)
    classes = max(int(numbers.max()) + 1, n_names)
    empty = classes - len(np.unique(numbers))
    log.info(
        "%s: labels are taken for class numbers, %d to %d", where, numbers.min(), numbers.max()
    )
    if empty:
        log.warning("%s: %d of the classes 0 to %d have no row", where, empty, classes - 1)
    return one_hot(numbers, classes).astype(np.float32)
