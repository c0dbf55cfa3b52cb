"""Several sources of images, or arrays, one after the other, without copying them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from dataset.base import ImageSource
from dataset.image_cache import Images
from utils.files import digest


class StackedImages:
    """The images of several sources, in order; caches are of each (:func:`sources_of`)."""

    def __init__(self, parts: Sequence[ImageSource]) -> None:
        """Take the sources; at least one."""
        self.parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part) for part in self.parts)])

    @property
    def fingerprint(self) -> str:
        """Hash of those of the parts."""
        return digest(*(part.fingerprint for part in self.parts))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def decode(self, row: int) -> np.ndarray:
        """Return the image of ``row``, RGB uint8 [H,W,3]."""
        part, row_in_part = self._find(row)
        return part.decode(row_in_part)

    def name(self, row: int) -> str:
        """Return what its source calls the image of ``row``."""
        part, row_in_part = self._find(row)
        return part.name(row_in_part)

    def _find(self, row: int) -> tuple[ImageSource, int]:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.parts[number], row - int(self._starts[number])


def sources_of(images: ImageSource) -> tuple[ImageSource, ...]:
    """Return the sources that ``images`` is stacked of, or itself."""
    return images.parts if isinstance(images, StackedImages) else (images,)


class StackedRows:
    """Images of several stores as those of one, which gives each in its own shape."""

    def __init__(self, stores: Sequence[Images]) -> None:
        """Take the stores; at least one."""
        self.stores = tuple(stores)
        self._starts = np.cumsum([0, *(len(store) for store in stores)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the images of ``rows``, int [m], each uint8 [H,W,3]."""
        images: list[np.ndarray] = [np.empty(0)] * len(rows)
        for start, store in zip(self._starts, self.stores, strict=False):
            here = np.flatnonzero((rows >= start) & (rows < start + len(store)))
            for at, image in zip(here, store[rows[here] - start], strict=True):
                images[at] = image
        return images


class _Stacked:
    """Arrays [n,…] of one kind as one [Σn,…] that can be asked for rows, and for nothing else."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.arrays = tuple(arrays)
        self.dtype = arrays[0].dtype
        self._starts = np.cumsum([0, *(len(array) for array in arrays)])
        self.shape = (int(self._starts[-1]), *arrays[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows, int [m], in their order."""
        rows = np.asarray(rows)
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for start, array in zip(self._starts, self.arrays, strict=False):
            here = (rows >= start) & (rows < start + len(array))
            values[here] = array[rows[here] - start]
        return values


def stack(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Return one array's worth of rows of several, memory-mapped ones perhaps; None of None.

    Raises:
        ValueError: arrays whose rows differ in shape.
    """
    present = [array for array in arrays if array is not None]
    if len(present) < len(arrays):
        return None
    if len(present) == 1:
        return present[0]
    if len({array.shape[1:] for array in present}) > 1:
        raise ValueError(f"rows of shapes {[array.shape[1:] for array in present]} do not stack")
    return cast(np.ndarray, _Stacked(present))


def stack_images(stores: Sequence[Images]) -> Images | StackedRows:
    """Return the images of several stores as one: as arrays where all are arrays of one shape."""
    arrays = [store for store in stores if isinstance(store, (np.ndarray, _Stacked))]
    if len(stores) == 1:
        return stores[0]
    if len(arrays) == len(stores):
        return cast(np.ndarray, stack(arrays))
    return StackedRows(stores)
