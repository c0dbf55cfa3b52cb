"""Images from files and from zip archives, decoded one by one."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from dataset.base import BadImageError, ImageSource
from utils.errors import UserError
from utils.files import digest, size_and_time
from utils.progress import progress_bar

T = TypeVar("T")

ROWS_PER_CHUNK = 1024
TRIED = 100
"""First pictures of a list that are looked for on disk; some may be lost, as NUS-WIDE's are."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
"""Endings of the names of image files, by which a folder is searched."""

# Errors of the operating system that concern one file; others (too many open files, a failing
# disk) are not the image's fault and are passed on.
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
    """Decode the image whose bytes ``read()`` returns to RGB uint8 [H,W,3].

    Equals ``numpy.asarray(PIL.Image.open(file).convert("RGB"))``; orientation tags are not applied,
    as in the reference implementations.

    Raises:
        BadImageError: missing, empty, truncated, too large or no image at all; names ``name``.
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
    """Images in files below a folder, or members of a zip archive that is read in place."""

    def __init__(
        self, names: Sequence[str], root: str | Path, archive: str | Path | None = None
    ) -> None:
        """Take the names of N images; nothing is opened yet.

        Args:
            names: paths below ``root`` (or absolute), or names of members of ``archive``.
            root: where relative names start.
            archive: a zip file that holds the images; a relative path starts at ``root``.
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
            infos = [members.get(name) for name in self.names]
            stats = [(i.file_size, i.CRC) if i is not None else (-1, 0) for i in infos]
        else:
            stats = [size_and_time(self.root / name) for name in self.names]
        lines = (
            f"{name}\t{one}\t{two}" for name, (one, two) in zip(self.names, stats, strict=True)
        )
        return digest("\n".join(lines))

    def decode(self, row: int) -> np.ndarray:
        """Return the image of ``row``, RGB uint8 [H,W,3].

        Raises:
            BadImageError: it is missing or cannot be decoded; names the file.
        """
        return decode_image(functools.partial(self._read, self.names[row]), self.name(row))

    def name(self, row: int) -> str:
        """Return the path of the image of ``row`` (archive: ``archive.zip/member``)."""
        return str((self.archive or self.root) / self.names[row])

    def take(self, rows: np.ndarray) -> FileImages:
        """Return the images of ``rows``, in that order."""
        return FileImages([self.names[row] for row in rows], self.root, self.archive)

    def check_first(self, listing: Path) -> None:
        """Refuse images of which none of the first, which ``listing`` names, exists."""
        if self.archive is not None:
            return
        tried = range(min(len(self), TRIED))
        if not any(Path(self.name(row)).is_file() for row in tried):
            raise UserError(
                f"The first picture that '{listing}' names, '{self.names[0]}', does not exist at "
                f"'{self.name(0)}', nor do those after it; set dataset.image_root to the folder "
                f"where the paths start (it is '{self.root}')."
            )

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
        """Map rows 0..n-1 to ``rows`` (int [n]) of ``source``, copying nothing."""
        self.source = source
        self.rows = np.asarray(rows, np.int64)
        self.fingerprint = digest(source.fingerprint, self.rows.tobytes())

    def __len__(self) -> int:
        return len(self.rows)

    def decode(self, row: int) -> np.ndarray:
        """Return the image of ``row``, RGB uint8 [H,W,3]."""
        return self.source.decode(int(self.rows[row]))

    def name(self, row: int) -> str:
        """Return the source's name of it."""
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


def in_threads(work: Callable[[int], T], n: int, title: str, per_core: int = 1) -> Iterator[T]:
    """Yield ``work(row)`` for rows 0..n-1, in order; shows progress on a terminal."""
    with progress_bar(title, n) as advance, thread_pool(per_core) as pool:
        for start in range(0, n, ROWS_PER_CHUNK):
            for result in pool.map(work, range(start, min(start + ROWS_PER_CHUNK, n))):
                advance(1)
                yield result


@contextlib.contextmanager
def thread_pool(per_core: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of up to 32 threads that drops its waiting tasks when the block ends early."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pool = ThreadPoolExecutor(min(per_core * (cores or 1), 32))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
