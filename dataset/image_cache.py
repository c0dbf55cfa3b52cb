"""The cache of decoded images: every image of a dataset is decoded only once.

:class:`ImageCache` holds every image as uint8 after the operations without chance that a
:class:`~dataset.operation_lists.Geometry` lists: in one memory-mapped ``[N,size,size,3]`` array
where they make squares, else one after the other (:class:`RaggedImages`). Training epochs and
evaluations read rows of it. Decoding that is interrupted or killed is gone on with
(:mod:`common.storage.blocks`). :class:`OriginalImages` decodes at every access, for operations that
begin with a random one.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import __version__ as pillow_version

from common.storage.blocks import Blocks, entry_by_blocks, saying_what_stays
from common.storage.cache import cache_root, counted_once, is_whole, locked, whole_or_removed
from dataset.base import ArrayImages, BadImageError, ImageSource
from dataset.images import ROWS_PER_CHUNK, FileImages, in_threads, require_unchanged
from dataset.operation_lists import Geometry
from dataset.picture_forms import CLIPPED, counted, treatment
from utils.errors import UserError
from utils.files import digest, reserve, sweep_debris, write_at

ON_BAD_IMAGE = ("error", "skip")
_KIND = "images"
BLOCK_S = 20.0
"""Seconds of work after which a block ends; a killed process loses that and a chunk of rows."""
TITLE = "decoding pictures once"
log = logging.getLogger("hashing")


class RaggedImages:
    """Images of different shapes, memory-mapped one after the other."""

    def __init__(self, data: np.ndarray, offsets: np.ndarray, shapes: np.ndarray) -> None:
        """Take bytes uint8 [T]; of each image its first byte [N], and height and width [N,2]."""
        self._data, self._offsets, self._shapes = data, offsets, shapes

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the images of ``rows``, int [m], each uint8 [H,W,3], read-only."""
        return [self._image(int(row)) for row in rows]

    def _image(self, row: int) -> np.ndarray:
        height, width = self._shapes[row]
        start = int(self._offsets[row])
        return self._data[start : start + 3 * int(height) * int(width)].reshape(height, width, 3)


class OriginalImages:
    """Images as their files hold them, decoded at every access."""

    def __init__(self, source: ImageSource) -> None:
        """Take where they come from."""
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the images of ``rows``, int [m], each uint8 [H,W,3].

        Raises:
            UserError: one cannot be read any more.
        """
        try:
            return [self._source.decode(int(row)) for row in rows]
        except BadImageError as error:
            raise _bad_image_error(str(error)) from error


Images = np.ndarray | RaggedImages | OriginalImages
"""What ``images[rows]`` gives pictures of: uint8 [m,S,S,3], or a list of m pictures [H,W,3]."""


class ImageCache:
    """All images of a source, decoded and resized, memory-mapped.

    Attributes:
        bad: row → why its image is unusable; such rows are black.
    """

    def __init__(
        self, arrays: dict[Geometry, np.ndarray | RaggedImages], bad: dict[int, str]
    ) -> None:
        """Take the images of each geometry; use :meth:`open` instead."""
        self._arrays = arrays
        self.bad = bad

    @classmethod
    def open(
        cls, source: ImageSource, geometries: Sequence[Geometry], on_bad_image: str = "error"
    ) -> ImageCache:
        """Return the cache of ``source``; missing geometries are built in one decoding pass.

        ``on_bad_image``: ``error``: the first bad image is an error; ``skip``: bad images are
        listed in :attr:`bad`, and the caller leaves their rows out.

        Raises:
            UserError: a bad image under ``error``, bad images only, no image at all, one that does
                not become a square, a full disk, or an unknown ``on_bad_image``.
        """
        if on_bad_image not in ON_BAD_IMAGE:
            raise UserError(f"data.on_bad_image={on_bad_image}: 'error' or 'skip' is needed.")
        if len(source) == 0:
            raise UserError("The dataset has no picture.")
        arrays: dict[Geometry, np.ndarray | RaggedImages] = {}
        requested = list(dict.fromkeys(geometries))
        folders = {g: _folder(source, g) for g in requested if not _held(source, g)}
        sweep_debris(cache_root() / _KIND)
        if not all(is_whole(folder) for folder in folders.values()):
            with counted_once(), locked(cache_root() / _KIND / f"{source.fingerprint}.lock"):
                missing = {g: path for g, path in folders.items() if not whole_or_removed(path)}
                if missing:
                    _build(source, missing, on_bad_image)
        bad: dict[int, str] = {}
        for geometry, folder in folders.items():
            arrays[geometry] = _load(folder, geometry)
            listed = json.loads((folder / "bad.json").read_text(encoding="utf-8"))
            bad.update({int(row): reason for row, reason in listed.items()})
        for geometry in requested:
            if geometry not in folders and isinstance(source, ArrayImages):
                arrays[geometry] = source.array
        if bad and on_bad_image == "error":
            raise _bad_image_error(bad[min(bad)])
        return cls(arrays, bad)

    def images(self, geometry: Geometry) -> np.ndarray | RaggedImages:
        """Return the images in ``geometry``, read-only: uint8 [N,size,size,3] if they are squares.

        Raises:
            KeyError: the cache was opened without this geometry.
        """
        return self._arrays[geometry]

    @property
    def bad_rows(self) -> np.ndarray:
        """Rows without a usable image, sorted, int64."""
        return np.array(sorted(self.bad), dtype=np.int64)


def _held(source: ImageSource, geometry: Geometry) -> bool:
    """Tell whether ``source`` is an array of images that are in ``geometry`` already."""
    return (
        isinstance(source, ArrayImages)
        and source.array.dtype == np.uint8
        and geometry.keeps(source.array.shape[1:])
    )


def _folder(source: ImageSource, geometry: Geometry) -> Path:
    """Return the cache folder of ``source`` in ``geometry``."""
    form = "ragged" if geometry.size is None else "squares"
    key = digest(source.fingerprint, str(geometry), form, f"Pillow {pillow_version}")
    return cache_root() / _KIND / key


def _load(folder: Path, geometry: Geometry) -> np.ndarray | RaggedImages:
    if geometry.size is not None:
        return np.load(folder / "pixels.npy", mmap_mode="r")
    data = np.memmap(folder / "pixels.bin", np.uint8, "r")
    return RaggedImages(data, np.load(folder / "offsets.npy"), np.load(folder / "shapes.npy"))


def _bad_image_error(reason: str) -> UserError:
    return UserError(
        f"Bad picture {reason} Mend or remove it; data.on_bad_image=skip counts such pictures and "
        "leaves their rows out."
    )


def _build(source: ImageSource, folders: dict[Geometry, Path], on_bad_image: str) -> None:
    """Decode every image once and write all ``folders``, each complete or not at all.

    What an earlier process had finished for all of them is not decoded again.
    """
    fingerprint, n = source.fingerprint, len(source)
    with contextlib.ExitStack() as stack:
        making = {g: stack.enter_context(entry_by_blocks(path)) for g, path in folders.items()}
        start, bad = _from_before(list(making.values()))
        writers: list[_Squares | _Ragged] = []
        for geometry, blocks in making.items():
            kind = _Ragged if geometry.size is None else _Squares
            writers.append(kind(blocks, n, geometry, stack))

        def write_row(row: int) -> str:
            """Return why the image is unusable, or nothing."""
            try:
                image = source.decode(row)
            except BadImageError as error:
                if on_bad_image == "error":
                    raise _bad_image_error(str(error)) from error
                return str(error)
            for writer in writers:
                writer.write(row, writer.geometry.apply(image, source.name(row)))
            return ""

        last = time.monotonic()
        stack.enter_context(saying_what_stays("pictures", writers[0].blocks, n))
        for row, problem in enumerate(in_threads(write_row, n, TITLE, start=start), start):
            if problem:
                bad[row] = problem
            end = row + 1
            # at the end of a chunk no thread is ahead
            due = (end - start) % ROWS_PER_CHUNK == 0 and time.monotonic() - last >= BLOCK_S
            if (due or end == n) and len(bad) < end:
                require_unchanged(source, fingerprint)
                for writer in writers:
                    writer.commit(end, bad)
                last = time.monotonic()
        if len(bad) == n:
            raise UserError(f"None of the {n} pictures can be read; the first: {bad[0]}")
        tell_forms(source)
        for writer in writers:
            writer.finish()
            listed = writer.path / "bad.json"
            listed.write_text(json.dumps(bad, indent=1), encoding="utf-8")


def _from_before(making: Sequence[Blocks]) -> tuple[int, dict[int, str]]:
    """Return how many rows all of ``making`` have, and those that are bad; forget the others."""
    ends = [{0, *(block.end for block in blocks.finished)} for blocks in making]
    start = max(set.intersection(*ends))
    bad: dict[int, str] = {}
    for blocks in making:
        blocks.rewind(start)
        blocks.path.mkdir(exist_ok=True)
        for block in blocks.finished:
            bad.update({int(row): problem for row, problem in block.note["bad"].items()})
    if start:
        log.info("%s: %s are there from before", TITLE, f"{start:,}")
    return start, bad


def tell_forms(source: ImageSource) -> None:
    """Tell which files hold more than RGB, and what became of it."""
    if not isinstance(source, FileImages):
        return
    done = [(form, treatment(form, source.colour)) for form in source.forms.values()]
    told = [form for form, parts in done if parts]
    if told:
        clipped = source.colour == "release" and any(form.startswith(CLIPPED) for form in told)
        log.log(
            logging.WARNING if clipped else logging.INFO,
            "%d of %d pictures hold more than RGB of 8 bits (%s); colour=%s: %s",
            len(told), len(source), counted(told), source.colour,
            ", ".join(dict.fromkeys(part for _, parts in done for part in parts)),
        )  # fmt: skip


class _Squares:
    """Writes images of one size into ``pixels.npy``; threads may do so at once."""

    def __init__(
        self, blocks: Blocks, n: int, geometry: Geometry, stack: contextlib.ExitStack
    ) -> None:
        self.geometry, self.path, self.blocks = geometry, blocks.path, blocks
        self._size = 3 * (geometry.size or 0) ** 2  # bytes of an image
        file = self.path / "pixels.npy"
        file.touch()
        stream = stack.enter_context(file.open("r+b"))
        if blocks.done:  # to reserve its space again may write zeros
            np.lib.format.read_magic(stream)
            np.lib.format.read_array_header_2_0(stream)
            self._start = stream.tell()
        else:
            self._start = start_npy(stream, (n, geometry.size or 0, geometry.size or 0, 3))
        self._file = stream.fileno()

    def write(self, row: int, pixels: np.ndarray) -> None:
        write_at(self._file, pixels.tobytes(), self._start + row * pixels.size)

    def commit(self, end: int, bad: Mapping[int, str]) -> None:
        """Record the rows up to ``end``, all of which are written."""
        done = self.blocks.done
        place = (self._start + done * self._size, (end - done) * self._size)
        note = {"bad": {row: why for row, why in bad.items() if row >= done}}
        self.blocks.commit(end, [("pixels.npy", *place)], note)

    def finish(self) -> None:
        """Nothing else has to be stored."""


class _Ragged:
    """Appends images to ``pixels.bin``; threads may do so at once."""

    def __init__(
        self, blocks: Blocks, n: int, geometry: Geometry, stack: contextlib.ExitStack
    ) -> None:
        self.geometry, self.path, self.blocks = geometry, blocks.path, blocks
        file = self.path / "pixels.bin"
        file.touch()
        self._file = stack.enter_context(file.open("r+b")).fileno()
        self._offsets, self._end = np.zeros(n, np.int64), 0
        self._shapes = np.zeros((n, 2), np.int32)
        start = 0
        for block in blocks.finished:
            self._offsets[start : block.end] = block.note["offsets"]
            self._shapes[start : block.end] = block.note["shapes"]
            (_, first, size, _), start = block.parts[0], block.end
            self._end = first + size
        self._committed = self._end
        os.ftruncate(self._file, self._end)  # of a block that was in work
        self._lock = threading.Lock()

    def write(self, row: int, pixels: np.ndarray) -> None:
        with self._lock:
            start, self._end = self._end, self._end + pixels.size
        self._offsets[row], self._shapes[row] = start, pixels.shape[:2]
        write_at(self._file, pixels.tobytes(), start)

    def commit(self, end: int, bad: Mapping[int, str]) -> None:
        """Record the rows up to ``end``, all of which are written."""
        done = self.blocks.done
        note = {
            "bad": {row: why for row, why in bad.items() if row >= done},
            "offsets": self._offsets[done:end].tolist(),
            "shapes": self._shapes[done:end].tolist(),
        }
        place = (self._committed, self._end - self._committed)
        self.blocks.commit(end, [("pixels.bin", *place)], note)
        self._committed = self._end

    def finish(self) -> None:
        np.save(self.path / "offsets.npy", self._offsets)
        np.save(self.path / "shapes.npy", self._shapes)


def start_npy(stream: io.BufferedWriter | io.BufferedRandom, shape: tuple[int, ...]) -> int:
    """Write the header of a uint8 ``.npy``, reserve space for the data, return its offset."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(stream, header)
    stream.flush()
    start = stream.tell()
    reserve(stream.fileno(), start, math.prod(shape))
    return start
