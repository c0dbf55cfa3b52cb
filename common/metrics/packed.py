"""Codes and labels as packed bits, from which the back ends count."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.codes import pack_codes
from common.metrics.labels import as_labels
from utils.errors import UserError

Bytes = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """Rows of codes with their labels; n rows, K bits, C classes.

    Attributes:
        codes: uint8 [n,⌈K/8⌉], LSB first, as :func:`common.codes.pack_codes` makes them; bits
            beyond K are 0.
        bits: code length K.
        labels: class numbers, int64 [n], or packed multi-hot labels, uint8 [n,⌈C/8⌉], LSB first.
        classes: number of classes C of multi-hot labels; None for class numbers.
    """

    codes: Bytes
    bits: int
    labels: NDArray[np.int64] | Bytes
    classes: int | None

    def __len__(self) -> int:
        return len(self.codes)

    def select(self, rows: slice | NDArray[np.bool_]) -> PackedRows:
        """Return some of the rows; a slice copies nothing."""
        return dataclasses.replace(self, codes=self.codes[rows], labels=self.labels[rows])


def pack_rows(codes: Any, labels: Any, *, strict: bool = False) -> PackedRows:
    """Check and pack codes and labels.

    Args:
        codes: array or tensor [n,K] that :func:`common.codes.as_codes` accepts.
        labels: [n,C] of 0/1, or class numbers [n].
        strict: refuse values other than ±1, 0 and 1 instead of taking their sign.

    Raises:
        UserError: no rows or bits, rows without labels, or values that are no codes or labels.

    >>> pack_rows([[1, -1, 1]], [[0, 1]])
    PackedRows(codes=array([[5]], dtype=uint8), bits=3, labels=array([[2]], dtype=uint8), classes=2)
    """
    packed = pack_codes(codes, strict=strict)
    shape = tuple(np.shape(codes))
    if len(shape) != 2 or 0 in shape:
        raise UserError(
            f"Codes have shape {list(shape)}; [N,K] with at least one row and one bit is needed."
        )
    checked = as_labels(labels)
    check_row_counts(len(packed), len(checked))
    return PackedRows(packed, shape[1], *pack_labels(checked))


def check_row_counts(codes: int, labels: int) -> None:
    """Refuse different numbers of rows of codes and of labels."""
    if codes != labels:
        raise UserError(
            f"There are {codes} rows of codes and {labels} of labels; each row of codes needs one "
            "of labels."
        )


def pack_labels(
    labels: NDArray[np.int64] | NDArray[np.bool_],
) -> tuple[NDArray[np.int64] | Bytes, int | None]:
    """Return labels as :class:`PackedRows` stores them, and their number of classes."""
    if labels.ndim == 1:
        return labels.astype(np.int64, copy=False), None
    return np.packbits(labels.astype(np.bool_), axis=1, bitorder="little"), labels.shape[1]


def planes(packed: Bytes, dtype: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
    """Return packed bits [n,B] as words, one contiguous row per word: ``dtype`` [W,n].

    >>> planes(np.array([[1, 0, 0, 0, 2]], dtype=np.uint8), np.uint32)
    array([[1],
           [2]], dtype=uint32)
    """
    width = np.dtype(dtype).itemsize
    padded = np.zeros((len(packed), -(-packed.shape[1] // width) * width), np.uint8)
    padded[:, : packed.shape[1]] = packed
    words = padded.view(np.dtype(dtype).newbyteorder("<"))
    return np.ascontiguousarray(words.T).astype(dtype, copy=False)
