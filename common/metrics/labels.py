"""Labels of a metric: class numbers or multi-hot."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from utils.errors import UserError


def as_labels(array: Any) -> NDArray[np.int64] | NDArray[np.bool_]:
    """Return labels as class numbers, int64 [N], or as multi-hot, bool [N,C].

    Args:
        array: array or tensor [N] of class numbers ≥ 0, or [N,C] of 0/1, of any real dtype; [N,1]
            is one class, which a row has or has not.

    Raises:
        UserError: another shape or other values, or class numbers so large that their type cannot
            tell neighbours apart.

    >>> as_labels([[1.0, 0.0]])
    array([[ True, False]])
    """
    values = np.asarray(array.detach().cpu() if isinstance(array, Tensor) else array)
    if values.dtype.kind not in "biuf" or values.ndim not in (1, 2):
        raise UserError(
            f"Labels are {values.dtype} {list(values.shape)}; a 0/1 array [N,C] or class numbers "
            "[N] are accepted."
        )
    if values.ndim == 1:
        if not (np.isfinite(values) & (values >= 0) & (values == np.floor(values))).all():
            raise UserError(
                "Labels of shape [N] must be class numbers 0, 1, 2, …; others were found."
            )
        digits = np.finfo(values.dtype).nmant + 1 if values.dtype.kind == "f" else 63  # of base 2
        if values.size and values.max() >= 2 ** min(digits, 63):
            raise UserError(
                f"Labels of type {values.dtype} hold the class number {values.max():.0f}; from "
                f"2^{min(digits, 63)} on different classes would fall together, so number them 0, "
                "1, 2, …."
            )
        return values.astype(np.int64)
    if values.dtype.kind == "b":
        return values
    multi_hot = values != 0
    if not np.array_equal(values, multi_hot):  # one pass; NaN differs from everything
        raise UserError(
            f"Labels of shape {list(values.shape)} hold values other than 0 and 1; give class "
            "numbers as a flat array [N]."
        )
    return multi_hot


def check_comparable(bits: tuple[int, int], classes: tuple[int | None, int | None]) -> None:
    """Refuse a query and a database, in this order, that cannot be compared.

    Raises:
        UserError: they differ in the number of bits or classes or in the kind of labels, of which
            class numbers have None as their number of classes.
    """
    if bits[0] != bits[1]:
        raise UserError(
            f"Query codes have {bits[0]} bits and database codes {bits[1]}; both need the same "
            "number."
        )
    if (classes[0] is None) != (classes[1] is None):
        kinds = {True: "class numbers [N]", False: "0/1 labels [N,C]"}
        raise UserError(
            f"The query has {kinds[classes[0] is None]} and the database "
            f"{kinds[classes[1] is None]}; both need the same kind."
        )
    if classes[0] != classes[1]:
        raise UserError(
            f"Query labels have {classes[0]} classes and database labels {classes[1]}; both need "
            "the same number."
        )
