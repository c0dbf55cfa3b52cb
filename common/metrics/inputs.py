"""What goes into a metric, checked: codes of one length, labels of one kind, rows that match."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.codes import as_codes
from common.metrics.histograms import Histograms, count_histograms
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
    if not ((values == 0) | (values == 1)).all():
        raise UserError(
            f"Labels of shape {list(values.shape)} hold values other than 0 and 1; give class "
            "numbers as a flat array [N]."
        )
    return values.astype(np.bool_)


def build_histograms(
    query_codes: Any,
    query_labels: Any,
    database_codes: Any,
    database_labels: Any,
    *,
    device: torch.device | str | None = None,
    memory_mb: float = 256,
) -> Histograms:
    """Check codes and labels and count: the start of every metric of one retrieval direction.

    Args:
        query_codes: array or tensor [Q,K] that :func:`common.codes.as_codes` accepts.
        query_labels: [Q,C] of 0/1, or class numbers [Q].
        database_codes: [N,K].
        database_labels: [N,C] or [N], of the same kind.
        device: where to count; None = where ``query_codes`` are (the CPU for arrays).
        memory_mb: bound on temporary memory in MiB.

    Raises:
        UserError: no rows, different numbers of bits or classes, labels of two kinds, rows
            without labels, or a device that is not there.
    """
    if device is None:
        device = query_codes.device if isinstance(query_codes, Tensor) else "cpu"
    _check_setting(device, memory_mb)
    query = _check_side("query", query_codes, query_labels)
    database = _check_side("database", database_codes, database_labels)
    if query[0].shape[1] != database[0].shape[1]:
        raise UserError(
            f"Query codes have {query[0].shape[1]} bits and database codes "
            f"{database[0].shape[1]}; both need the same number."
        )
    if query[1].ndim != database[1].ndim:
        kinds = {1: "class numbers [N]", 2: "0/1 labels [N,C]"}
        raise UserError(
            f"The query has {kinds[query[1].ndim]} and the database {kinds[database[1].ndim]}; "
            "both need the same kind."
        )
    if query[1].shape[1:] != database[1].shape[1:]:
        raise UserError(
            f"Query labels have {query[1].shape[1]} classes and database labels "
            f"{database[1].shape[1]}; both need the same number."
        )
    return count_histograms(*query, *database, device=device, memory_mb=memory_mb)


def _check_setting(device: torch.device | str, memory_mb: float) -> None:
    """Refuse a device that torch cannot use, and a memory bound that is no positive number."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"Device '{device}' cannot be used here; choose 'cpu' or a device that torch lists."
        ) from error
    if not memory_mb > 0:
        raise UserError(f"memory_mb is {memory_mb}; a number of MiB above 0 is needed.")


def _check_side(side: str, codes: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Return codes int8 [N,K] and labels of one side, or say what is wrong with which side."""
    try:
        signs, marks = as_codes(codes), as_labels(labels)
    except UserError as error:
        raise UserError(f"In the {side}: {error}") from error
    if signs.ndim != 2 or 0 in signs.shape:
        raise UserError(
            f"The {side} codes have shape {list(signs.shape)}; [N,K] with at least one row and "
            "one bit is needed."
        )
    if len(signs) != len(marks):
        raise UserError(
            f"The {side} has {len(signs)} rows of codes and {len(marks)} of labels; each row of "
            "codes needs one of labels."
        )
    return torch.from_numpy(signs), torch.from_numpy(marks)
