"""Pictures from files and archives, and the cache that decodes each of them only once.

:class:`ImageCache` holds every picture of a dataset as uint8, resized, in one memory-mapped
``[N,size,size,3]`` array per :class:`Geometry`; training epochs and evaluations read rows of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL import __version__ as pillow_version

from common.storage.cache import cache_root, locked
from dataset.base import ArrayImages, BadImageError, ImageSource
from utils.errors import UserError
from utils.files import atomic_path, digest
from utils.progress import progress_bar

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
"""Names that end so are taken for pictures when a folder is walked."""

ON_BAD_IMAGE = ("error", "skip")
_KIND = "images"
_ROWS_PER_TASK = 16
# What the operating system says of this one file; other errors (too many open files, a failing
# disk) are not the picture's fault and are passed on.
_FILE_ERRORS = {
    errno.ENOENT: "the file does not exist",
    errno.ENOTDIR: "the file does not exist",
    errno.EISDIR: "it is a folder, not a file",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENAMETOOLONG: "the path is too long",
    errno.ELOOP: "its links run in a circle",
}


def decode_image(read: Callable[[], bytes], name: str) -> np.ndarray:
    """Decode the picture whose bytes ``read()`` returns to RGB uint8 [H,W,3].

    Equals ``numpy.asarray(PIL.Image.open(file).convert("RGB"))``; orientation tags are not applied,
    as in the reference implementations.

    Raises:
        BadImageError: missing, empty, truncated, too large or no picture at all; names ``name``.
    """
    try:
        data = read()
        if not data:
            raise BadImageError(f"'{name}': the file is empty.")
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except (BadImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise BadImageError(f"'{name}': this is no picture in a known format.") from error
    except Image.DecompressionBombError as error:
        raise BadImageError(f"'{name}': too many pixels to be safe to decode ({error}).") from error
    except OSError as error:
        if error.errno is not None and error.errno not in _FILE_ERRORS:
            raise
        reason = _FILE_ERRORS.get(error.errno or 0, f"broken or cut short ({error})")
        raise BadImageError(f"'{name}': {reason}.") from error
    except Exception as error:  # a broken file makes decoders and zipfile fail in many ways
        raise BadImageError(f"'{name}': broken ({type(error).__name__}: {error}).") from error


class FileImages:
    """Pictures in files below a folder, or members of a zip archive that is read in place."""

    def __init__(
        self, names: Sequence[str], root: str | Path, archive: str | Path | None = None
    ) -> None:
        """Take the names of N pictures; nothing is opened yet.

        Args:
            names: paths below ``root`` (or absolute), or names of members of ``archive``.
            root: where relative names start.
            archive: a zip file that holds the pictures; a relative path starts at ``root``.
        """
        self.names = tuple(names)
        self.root = Path(root)
        self.archive = None if archive is None else self.root / archive
        self._zip: tuple[int, zipfile.ZipFile] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_zip": None}

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of all names with size and time of change (archive: size and checksum)."""
        if self.archive is not None:
            members = {info.filename: info for info in self._open_zip().infolist()}
            known = [members.get(name) for name in self.names]
            facts = [(i.file_size, i.CRC) if i is not None else (-1, 0) for i in known]
        else:
            facts = [_size_and_time(self.root / name) for name in self.names]
        lines = (
            f"{name}\t{one}\t{two}" for name, (one, two) in zip(self.names, facts, strict=True)
        )
        return digest("\n".join(lines))

    def decode(self, row: int) -> np.ndarray:
        """Return the picture of ``row``, RGB uint8 [H,W,3].

        Raises:
            BadImageError: it is missing or cannot be decoded; names the file.
        """
        return decode_image(functools.partial(self._read, self.names[row]), self.name(row))

    def name(self, row: int) -> str:
        """Return the path of the picture of ``row`` (archive: ``archive.zip/member``)."""
        return str((self.archive or self.root) / self.names[row])

    def take(self, rows: np.ndarray) -> FileImages:
        """Return the pictures of ``rows``, in that order."""
        return FileImages([self.names[row] for row in rows], self.root, self.archive)

    def _read(self, name: str) -> bytes:
        if self.archive is None:
            return (self.root / name).read_bytes()
        try:
            return self._open_zip().read(name)
        except KeyError as error:
            raise BadImageError(f"'{self.archive}' has no member '{name}'.") from error

    def _open_zip(self) -> zipfile.ZipFile:
        """Return the archive, opened once per process (forked handles share their position)."""
        assert self.archive is not None
        if self._zip is None or self._zip[0] != os.getpid():
            self._zip = (os.getpid(), open_archive(self.archive))
        return self._zip[1]


class SelectedImages:
    """Some rows of another source, in a given order."""

    def __init__(self, source: ImageSource, rows: np.ndarray) -> None:
        """Show ``rows`` (int [n]) of ``source`` as rows 0..n-1, copying nothing."""
        self.source = source
        self.rows = np.asarray(rows, np.int64)
        self.fingerprint = digest(source.fingerprint, self.rows.tobytes())

    def __len__(self) -> int:
        return len(self.rows)

    def decode(self, row: int) -> np.ndarray:
        """Return the picture of ``row``, RGB uint8 [H,W,3]."""
        return self.source.decode(int(self.rows[row]))

    def name(self, row: int) -> str:
        """Return what the source calls it."""
        return self.source.name(int(self.rows[row]))


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a zip archive for reading.

    Raises:
        UserError: it does not exist or is no zip archive.
    """
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise UserError(f"Archive '{path}' does not exist (dataset.archive).") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"Archive '{path}' cannot be read as a zip file ({error}); dataset.archive takes .zip "
            "only, other archives must be extracted."
        ) from error


def _size_and_time(path: Path) -> tuple[int, int]:
    """Return size in bytes and time of change in ns, or (-1, 0) for a file that is not there."""
    try:
        facts = path.stat()
    except OSError:
        return -1, 0
    return facts.st_size, facts.st_mtime_ns


@dataclasses.dataclass(frozen=True)
class Geometry:
    """How a picture becomes ``size`` px square, by bicubic resampling.

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

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Return ``picture`` (uint8 [H,W,3]) as uint8 [size,size,3]."""
        image = Image.fromarray(picture)
        if self.mode == "squash":
            return np.asarray(image.resize((self.size, self.size), Image.Resampling.BICUBIC))
        short = min(image.size)
        width, height = (self.size * side // short for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

    def fits(self, source: ImageSource) -> bool:
        """Tell whether ``source`` already holds all its pictures in this geometry."""
        shape = (len(source), self.size, self.size, 3)
        return (
            isinstance(source, ArrayImages)
            and source.array.shape == shape
            and source.array.dtype == np.uint8
        )


class ImageCache:
    """All pictures of a source, decoded and resized, as memory-mapped arrays.

    Attributes:
        bad: row → what is wrong with its picture; such rows are black in the arrays.
    """

    def __init__(self, arrays: dict[Geometry, np.ndarray], bad: dict[int, str]) -> None:
        """Take arrays uint8 [N,size,size,3]; use :meth:`open` instead."""
        self._arrays = arrays
        self.bad = bad

    @classmethod
    def open(
        cls, source: ImageSource, geometries: Sequence[Geometry], on_bad_image: str = "error"
    ) -> ImageCache:
        """Return the cache of ``source``; geometries not in it yet are made from one decoding pass.

        Args:
            source: N pictures.
            geometries: what is wanted of each.
            on_bad_image: ``error``: the first bad picture ends it; ``skip``: bad pictures are
                listed in :attr:`bad`, for the caller to leave these rows out.

        Raises:
            UserError: a bad picture under ``error``, nothing but bad pictures, no picture at all,
                no room on disk, or an unknown ``on_bad_image``.
        """
        if on_bad_image not in ON_BAD_IMAGE:
            raise UserError(f"data.on_bad_image={on_bad_image}: 'error' or 'skip' is needed.")
        if len(source) == 0:
            raise UserError("The dataset has no picture.")
        arrays: dict[Geometry, np.ndarray] = {}
        wanted = list(dict.fromkeys(geometries))
        folders = {g: _folder(source, g) for g in wanted if not g.fits(source)}
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
        for geometry in wanted:
            if geometry not in folders and isinstance(source, ArrayImages):
                arrays[geometry] = source.array
        if bad and on_bad_image == "error":
            raise _bad_image_error(bad[min(bad)])
        return cls(arrays, bad)

    def array(self, geometry: Geometry) -> np.ndarray:
        """Return the pictures in ``geometry``, uint8 [N,size,size,3], read-only.

        Raises:
            KeyError: the cache was opened without this geometry.
        """
        return self._arrays[geometry]

    @property
    def bad_rows(self) -> np.ndarray:
        """Rows without a usable picture, sorted, int64."""
        return np.array(sorted(self.bad), dtype=np.int64)


def _folder(source: ImageSource, geometry: Geometry) -> Path:
    """Return where the pictures of ``source`` lie in ``geometry``."""
    key = digest(source.fingerprint, geometry.mode, str(geometry.size), f"Pillow {pillow_version}")
    return cache_root() / _KIND / key


def _bad_image_error(reason: str) -> UserError:
    return UserError(
        f"Bad picture {reason} Mend or remove it; data.on_bad_image=skip counts such pictures and "
        "leaves their rows out."
    )


def _build(source: ImageSource, folders: dict[Geometry, Path], on_bad_image: str) -> None:
    """Decode every picture once and write all ``folders``, each complete or not at all."""
    with contextlib.ExitStack() as stack:
        files: dict[Geometry, int] = {}
        temporary = {g: stack.enter_context(atomic_path(path)) for g, path in folders.items()}
        starts = {}
        for geometry, path in temporary.items():
            path.mkdir()
            stream = stack.enter_context(open(path / "pixels.npy", "wb"))
            starts[geometry] = _start_npy(stream, (len(source), geometry.size, geometry.size, 3))
            files[geometry] = stream.fileno()

        def work(rows: range) -> list[tuple[int, str]]:
            bad = []
            for row in rows:
                try:
                    picture = source.decode(row)
                except BadImageError as error:
                    if on_bad_image == "error":
                        raise _bad_image_error(str(error)) from error
                    bad.append((row, str(error)))
                    continue
                for geometry, file in files.items():
                    pixels = geometry.apply(picture).tobytes()
                    _write_at(file, pixels, starts[geometry] + row * len(pixels))
            return bad

        bad = [entry for found in _in_threads(work, len(source)) for entry in found]
        if len(bad) == len(source):
            raise UserError(
                f"None of the {len(source)} pictures can be read; the first: {bad[0][1]}"
            )
        listed = json.dumps({str(row): reason for row, reason in sorted(bad)}, indent=1)
        for path in temporary.values():
            (path / "bad.json").write_text(listed, encoding="utf-8")


def _start_npy(stream: io.BufferedWriter, shape: tuple[int, ...]) -> int:
    """Write the header of a uint8 ``.npy``, reserve room for the rest, return where that starts."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(stream, header)
    stream.flush()
    start, size = stream.tell(), int(np.prod(shape, dtype=np.int64))
    os.truncate(stream.fileno(), start + size)
    if hasattr(os, "posix_fallocate"):
        try:  # so that a disk too small is found out now, not after an hour
            os.posix_fallocate(stream.fileno(), start, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    return start


def _write_at(file: int, data: bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``; threads may do so side by side."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest, offset = rest[written:], offset + written


def _in_threads(
    work: Callable[[range], list[tuple[int, str]]], n: int
) -> Iterator[list[tuple[int, str]]]:
    """Yield ``work(rows)`` for stretches of 0..n-1, in order; shows progress on a terminal."""
    tasks = [range(i, min(i + _ROWS_PER_TASK, n)) for i in range(0, n, _ROWS_PER_TASK)]
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pool = ThreadPoolExecutor(min(threads or 1, 32))
    try:
        with progress_bar("decoding pictures once", n) as advance:
            for rows, result in zip(tasks, pool.map(work, tasks), strict=True):
                advance(len(rows))
                yield result
    finally:
        pool.shutdown(cancel_futures=True)
