"""The cache of decoded images: every image of a dataset is decoded only once.

:class:`ImageCache` holds every image as uint8, resized, in one memory-mapped ``[N,size,size,3]``
array per :class:`Geometry`; training epochs and evaluations read rows of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL import __version__ as pillow_version

from common.storage.cache import cache_root, locked
from dataset.base import ArrayImages, BadImageError, ImageSource
from dataset.images import in_threads
from utils.errors import UserError
from utils.files import atomic_path, digest

ON_BAD_IMAGE = ("error", "skip")
_KIND = "images"


@dataclasses.dataclass(frozen=True)
class Geometry:
    """How an image becomes ``size`` px square, by bicubic resampling.

    Attributes:
        mode: ``squash``: to exactly size × size, aspect ratio lost; ``crop``: the short side to
            ``size``, then the middle is cut out (as torchvision's Resize and CenterCrop).
        size: in pixels.
    """

    mode: str
    size: int

    def __post_init__(self) -> None:
        if self.mode not in ("squash", "crop") or self.size < 1:
            raise UserError(
                f"Image geometry '{self.mode}' of {self.size} px: the mode is squash or crop, the "
                "size at least 1."
            )

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Return ``pixels`` (uint8 [H,W,3]) as uint8 [size,size,3]."""
        image = Image.fromarray(pixels)
        if self.mode == "squash":
            return np.asarray(image.resize((self.size, self.size), Image.Resampling.BICUBIC))
        short = min(image.size)
        width, height = (self.size * side // short for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

    def fits(self, source: ImageSource) -> bool:
        """Tell whether ``source`` already holds all its images in this geometry."""
        shape = (len(source), self.size, self.size, 3)
        return (
            isinstance(source, ArrayImages)
            and source.array.shape == shape
            and source.array.dtype == np.uint8
        )


class ImageCache:
    """All images of a source, decoded and resized, as memory-mapped arrays.

    Attributes:
        bad: row → why its image is unusable; such rows are black in the arrays.
    """

    def __init__(self, arrays: dict[Geometry, np.ndarray], bad: dict[int, str]) -> None:
        """Take arrays uint8 [N,size,size,3]; use :meth:`open` instead."""
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
            UserError: a bad image under ``error``, bad images only, no image at all, a full disk,
                or an unknown ``on_bad_image``.
        """
        if on_bad_image not in ON_BAD_IMAGE:
            raise UserError(f"data.on_bad_image={on_bad_image}: 'error' or 'skip' is needed.")
        if len(source) == 0:
            raise UserError("The dataset has no picture.")
        arrays: dict[Geometry, np.ndarray] = {}
        requested = list(dict.fromkeys(geometries))
        folders = {g: _folder(source, g) for g in requested if not g.fits(source)}
        if not all(folder.exists() for folder in folders.values()):
            with locked(cache_root() / _KIND / f"{source.fingerprint}.lock"):
                missing = {g: path for g, path in folders.items() if not path.exists()}
                if missing:
                    _build(source, missing, on_bad_image)
        bad: dict[int, str] = {}
        for geometry, folder in folders.items():
            arrays[geometry] = np.load(folder / "pixels.npy", mmap_mode="r")
            listed = json.loads((folder / "bad.json").read_text(encoding="utf-8"))
            bad.update({int(row): reason for row, reason in listed.items()})
        for geometry in requested:
            if geometry not in folders and isinstance(source, ArrayImages):
                arrays[geometry] = source.array
        if bad and on_bad_image == "error":
            raise _bad_image_error(bad[min(bad)])
        return cls(arrays, bad)

    def array(self, geometry: Geometry) -> np.ndarray:
        """Return the images in ``geometry``, uint8 [N,size,size,3], read-only.

        Raises:
            KeyError: the cache was opened without this geometry.
        """
        return self._arrays[geometry]

    @property
    def bad_rows(self) -> np.ndarray:
        """Rows without a usable image, sorted, int64."""
        return np.array(sorted(self.bad), dtype=np.int64)


def _folder(source: ImageSource, geometry: Geometry) -> Path:
    """Return the cache folder of ``source`` in ``geometry``."""
    key = digest(source.fingerprint, geometry.mode, str(geometry.size), f"Pillow {pillow_version}")
    return cache_root() / _KIND / key


def _bad_image_error(reason: str) -> UserError:
    return UserError(
        f"Bad picture {reason} Mend or remove it; data.on_bad_image=skip counts such pictures and "
        "leaves their rows out."
    )


def _build(source: ImageSource, folders: dict[Geometry, Path], on_bad_image: str) -> None:
    """Decode every image once and write all ``folders``, each complete or not at all."""
    with contextlib.ExitStack() as stack:
        files: dict[Geometry, int] = {}
        temporary = {g: stack.enter_context(atomic_path(path)) for g, path in folders.items()}
        starts = {}
        for geometry, path in temporary.items():
            path.mkdir()
            stream = stack.enter_context(open(path / "pixels.npy", "wb"))
            starts[geometry] = _start_npy(stream, (len(source), geometry.size, geometry.size, 3))
            files[geometry] = stream.fileno()

        def write_row(row: int) -> str:
            """Return why the image is unusable, or nothing."""
            try:
                image = source.decode(row)
            except BadImageError as error:
                if on_bad_image == "error":
                    raise _bad_image_error(str(error)) from error
                return str(error)
            for geometry, file in files.items():
                pixels = geometry.apply(image).tobytes()
                _write_at(file, pixels, starts[geometry] + row * len(pixels))
            return ""

        problems = in_threads(write_row, len(source), "decoding pictures once")
        bad = {row: problem for row, problem in enumerate(problems) if problem}
        if len(bad) == len(source):
            raise UserError(f"None of the {len(source)} pictures can be read; the first: {bad[0]}")
        for path in temporary.values():
            (path / "bad.json").write_text(json.dumps(bad, indent=1), encoding="utf-8")


def _start_npy(stream: io.BufferedWriter, shape: tuple[int, ...]) -> int:
    """Write the header of a uint8 ``.npy``, reserve space for the data, return its offset."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(stream, header)
    stream.flush()
    start, size = stream.tell(), int(np.prod(shape, dtype=np.int64))
    os.truncate(stream.fileno(), start + size)
    if hasattr(os, "posix_fallocate"):
        try:  # so that a full disk is an error now, not after an hour
            os.posix_fallocate(stream.fileno(), start, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    return start


def _write_at(file: int, data: bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``; threads may do so concurrently."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest, offset = rest[written:], offset + written
