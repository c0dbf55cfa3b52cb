"""Codes and their labels in memory or in a file, read in blocks of rows.

A file may be larger than memory: it is opened for each pass, and one block is in memory at a time.
A first pass checks every value, because one value decides how all are read: nothing but zeros and
ones is 0/1, where 0 is -1; of other values the sign is taken, where 0 is +1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.codes import as_codes, check_packed, pack_codes, unpack_codes
from common.metrics import PackedRows, as_labels
from common.metrics.packed import check_row_counts, pack_labels
from utils.errors import UserError

_BLOCK_BYTES = 2**24


class Stored(NamedTuple):
    """Stored arrays: objects with a shape and a dtype that return rows for a slice."""

    values: Any  # codes [N,K], or packed codes uint8 [N,⌈K/8⌉]
    labels: Any = None  # [N,C] of 0/1, class numbers [N] or [N,1], or None without labels


Opener = Callable[[], AbstractContextManager[Stored]]


@dataclasses.dataclass(frozen=True)
class CodeSource:
    """N rows of codes of K bits, with or without labels; see :func:`source_of`."""

    name: str  # the file, and the part of it, for messages
    rows: int  # N
    bits: int  # K
    label_shape: tuple[int, ...] | None  # (C,): of 0/1, (): class numbers, None: without labels
    label_column: bool  # class numbers are stored as [N,1]
    form: str  # of the values: "packed", "0/1", "±1", "±1 and 0", "real"
    opened: Opener  # opens the stored arrays for one pass
    block_rows: int

    @property
    def notes(self) -> list[str]:
        """Sentences on how the values are read, for the reader of a report."""
        notes = {
            "real": "real values, of which the sign was taken (0 counts as +1)",
            "±1 and 0": "zeros beside ±1, which count as +1",
        }
        said = [notes[self.form]] if self.form in notes else []
        if self.label_column:
            said.append("labels of shape [N,1], which were read as class numbers")
        return [f"'{self.name}' holds {note}" for note in said]

    @property
    def labels(self) -> NDArray[np.int64] | NDArray[np.bool_]:
        """All labels, bool [N,C] or int64 [N]."""
        with self.opened() as stored:
            return np.concatenate([_labels(stored.labels[part]) for part in self._parts()])

    @property
    def packed_bytes(self) -> int:
        """Memory that :meth:`read` takes."""
        label = 8 if not self.label_shape else -(-self.label_shape[0] // 8)
        return self.rows * (-(-self.bits // 8) + label)

    def blocks(self) -> Iterator[PackedRows]:
        """Yield the rows in order, packed, with their labels."""
        with self.opened() as stored:
            for part in self._parts():
                labels, classes = pack_labels(_labels(stored.labels[part]))
                yield PackedRows(self._packed(stored.values[part]), self.bits, labels, classes)

    def read(self) -> PackedRows:
        """Return all rows, packed, with their labels."""
        blocks = list(self.blocks())
        return dataclasses.replace(
            blocks[0],
            codes=np.concatenate([block.codes for block in blocks]),
            labels=np.concatenate([block.labels for block in blocks]),
        )

    def packed_codes(self) -> NDArray[np.uint8]:
        """Return the codes of all rows, uint8 [N,⌈K/8⌉]; labels are not needed."""
        with self.opened() as stored:
            return np.concatenate([self._packed(stored.values[part]) for part in self._parts()])

    def codes(self) -> NDArray[np.int8]:
        """Return the codes of all rows, int8 [N,K] of ±1."""
        return unpack_codes(self.packed_codes(), self.bits)

    def _parts(self) -> Iterator[slice]:
        return _slices(self.rows, self.block_rows)

    def _packed(self, values: Any) -> NDArray[np.uint8]:
        """Return a block of values as packed codes, the bits beyond K zero."""
        if self.form != "packed":
            return pack_codes(values > 0 if self.form == "0/1" else values >= 0)
        packed = np.array(values)
        if self.bits % 8:
            packed[:, -1] &= (1 << self.bits % 8) - 1
        return packed


def source_of(
    name: str, stored: Stored | Opener, bits: int | None = None, *, strict: bool = False
) -> CodeSource:
    """Check stored arrays, in one pass, and return them as a source.

    Args:
        name: the file, for messages.
        stored: arrays, or a function that opens them.
        bits: K if the values are packed codes, None if they are codes.
        strict: refuse values other than ±1, 0 and 1.

    Raises:
        UserError: no codes, invalid labels, or different numbers of rows; the message does not
            name the file.
    """
    opened: Opener = (lambda: nullcontext(stored)) if isinstance(stored, Stored) else stored
    with opened() as content:
        shape = tuple(content.values.shape or ())
        as_codes(np.zeros(0, content.values.dtype))  # refuses text, objects, records
        if len(shape) != 2 or 0 in shape:
            raise UserError(f"Codes have shape {list(shape)}, not [N,K] with N and K above 0.")
        width = _row_bytes(content.values) + _row_bytes(content.labels)
        block_rows = max(1, _BLOCK_BYTES // max(1, width))
        if bits is None:
            form = _form(content.values, block_rows, strict)
        else:
            form = "packed"
            check_packed(content.values, bits)
        has_labels = content.labels is not None
        label_shape = _check_labels(content.labels, shape[0], block_rows) if has_labels else None
        is_column = label_shape == () and len(content.labels.shape) == 2
    return CodeSource(
        name, shape[0], bits or shape[1], label_shape, is_column, form, opened, block_rows
    )


def _labels(block: Any) -> NDArray[np.int64] | NDArray[np.bool_]:
    """Return a block of stored labels; [n,1] are class numbers, for one class says nothing."""
    return as_labels(np.reshape(block, -1) if block.shape[1:] == (1,) else block)


def _form(values: Any, block_rows: int, strict: bool) -> str:
    """Return the form of the values, or refuse them."""
    possible = {"0/1", "±1", "±1 and 0"}
    for part in _slices(len(values), block_rows):
        block = np.asarray(values[part])
        as_codes(block, strict=strict)  # refuses NaN and packed bits
        size, zero = np.abs(block), block == 0
        if not (zero | (block == 1)).all():
            possible.discard("0/1")
        if not (size == 1).all():
            possible.discard("±1")
        if not (zero | (size == 1)).all():
            possible.discard("±1 and 0")
        if not possible and block.dtype.kind != "f":
            break  # integers hold no NaN, and the form is "real"
    return next((form for form in ("0/1", "±1", "±1 and 0") if form in possible), "real")


def _check_labels(labels: Any, rows: int, block_rows: int) -> tuple[int, ...]:
    """Return the shape of one row's labels, or refuse them."""
    shape = tuple(labels.shape or ())
    if not shape or labels.dtype.kind not in "biuf":
        as_labels(np.zeros(shape, labels.dtype))
    check_row_counts(rows, shape[0])
    if 0 in shape:
        raise UserError(f"Labels have shape {list(shape)}, so no class.")
    for part in _slices(rows, block_rows):
        _labels(labels[part])
    return () if shape[1:] == (1,) else shape[1:]


def _row_bytes(array: Any) -> int:
    """Return the bytes of one row."""
    if array is None:
        return 0
    return int(np.prod(array.shape[1:], dtype=np.int64)) * int(array.dtype.itemsize)


def _slices(rows: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, rows, step))
