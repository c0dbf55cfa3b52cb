"""Labels as a metric takes them: class numbers or multi-hot."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from utils.errors import UserError


def as_labels(array: Any) -> NDArray[np.int64] | NDArray[np.bool_]:
    """Return labels as class numbers, int64 [N], or as multi-hot, bool [N,C].

    Args:
        array: array or tensor [N] of class numbers ≥ 0, or [N,C] of 0/1, of any real dtype.

    Raises:
        UserError: another shape, or values that are neither.

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
        return values.astype(np.int64)
    if values.dtype.kind == "b":
        return values
    marks = values != 0
    if not np.array_equal(values, marks):  # one pass; NaN differs from everything
        raise UserError(
            f"Labels of shape {list(values.shape)} hold values other than 0 and 1; give class "
            "numbers as a flat array [N]."
        )
    return marks
