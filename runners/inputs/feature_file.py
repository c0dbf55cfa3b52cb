"""The file of cached features, written by blocks of rows that outlast the process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from types import TracebackType

import numpy as np

from common.storage.blocks import Blocks
from utils.files import reserve, write_at

NAMES = ("pooled", "tokens", "mask")
BLOCK_S = 20.0
"""Seconds of work after which a block ends; a killed process loses less than that and a batch."""


class FeatureFile:
    """An HDF5 file with arrays of a known number of rows, which are written in order.

    The file has its layout and its size from the first row on, so that rows go to their places
    without the library; what a killed process leaves is a whole file in which rows are missing. As
    a context manager it records the rows written last, also after an error or Ctrl-C.

    Attributes:
        done: rows that are written.
    """

    def __init__(self, blocks: Blocks, rows: int, bad_rows: np.ndarray) -> None:
        """Go on behind the finished ``blocks``; ``bad_rows`` int64 [n] is stored beside."""
        self._blocks, self._rows, self._bad_rows = blocks, rows, bad_rows
        self._places: dict[str, tuple[int, int]] = {}  # name → first byte, bytes of a row
        self._last = time.monotonic()
        if blocks.done:
            try:
                self._find_places()
            except (OSError, KeyError):
                blocks.rewind(0)
        self.done = blocks.done

    def append(self, values: Mapping[str, np.ndarray]) -> None:
        """Write the next rows: name → array [n,...], the same names and types at every call."""
        if not self.done:
            self._create(values)
        count = len(values["pooled"])
        with open(self._blocks.path, "r+b") as stream:
            for name, array in values.items():
                start, size = self._places[name]
                data = np.ascontiguousarray(array).tobytes()
                write_at(stream.fileno(), data, start + self.done * size)
        self.done += count
        if time.monotonic() - self._last >= BLOCK_S or self.done == self._rows:
            self._commit()

    def __enter__(self) -> FeatureFile:
        """Record blocks while the body runs."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Record the rows that were written last."""
        if error is not None:
            with contextlib.suppress(OSError):
                self._commit()

    def _create(self, values: Mapping[str, np.ndarray]) -> None:
        import h5py

        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_obj_track_times(False)  # equal values make equal files
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        with h5py.File(self._blocks.path, "w") as file:
            file["bad_rows"] = self._bad_rows
            for name, array in values.items():
                space = h5py.h5s.create_simple((self._rows, *array.shape[1:]))
                dtype = h5py.h5t.py_create(array.dtype, logical=True)
                h5py.h5d.create(file.id, name.encode(), dtype, space, layout)
        self._find_places()
        with open(self._blocks.path, "r+b") as stream:
            for start, size in self._places.values():
                reserve(stream.fileno(), start, size * self._rows)

    def _find_places(self) -> None:
        import h5py

        with h5py.File(self._blocks.path, "r") as file:
            for name in NAMES:
                if name in file:
                    stored = file[name]
                    size = stored.dtype.itemsize * int(np.prod(stored.shape[1:]))
                    self._places[name] = (stored.id.get_offset(), size)

    def _commit(self) -> None:
        start, count = self._blocks.done, self.done - self._blocks.done
        if count:
            places = self._places.values()
            ranges = [(".", first + start * size, count * size) for first, size in places]
            self._blocks.commit(self.done, ranges)
        self._last = time.monotonic()
