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

from common.storage.contents import content_digest, content_digests
from dataset.base import BadImageError, ImageSource
from dataset.picture_forms import PLAIN, Colour, to_rgb
from dataset.pixel_budget import pixel_budget
from utils.errors import UserError
from utils.files import check_plain_file, digest, special_kind
from utils.progress import row_progress

T = TypeVar("T")

ROWS_PER_CHUNK = 1024
TRIED = 100
"""First pictures of a list that are looked for on disk; some may be lost, as NUS-WIDE's are."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
"""Endings that image files have; files of other endings are opened to see (picture_walk.py)."""

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


def decode_image(read: Callable[[], bytes], name: str, colour: Colour = "release") -> np.ndarray:
    """Decode the image whose bytes ``read()`` returns to RGB uint8 [H,W,3].

    The parameters and errors are those of :func:`decode_with_form`.
    """
    return decode_with_form(read, name, colour)[0]


def decode_with_form(
    read: Callable[[], bytes], name: str, colour: Colour
) -> tuple[np.ndarray, str]:
    """Decode an image to RGB uint8 [H,W,3], and say in words what its file holds.

    ``colour``: see :mod:`dataset.picture_forms`.

    Raises:
        BadImageError: missing, empty, truncated, too large or no image at all; names ``name``.
    """
    try:
        data = read()
        if not data:
            raise BadImageError(f"'{name}': the file is empty.")
        with (
            Image.open(io.BytesIO(data)) as image,
            pixel_budget.decoding(image.width * image.height),
        ):
            return _rgb(image, name, colour)
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


def _rgb(image: Image.Image, name: str, colour: Colour) -> tuple[np.ndarray, str]:
    try:
        return to_rgb(image, colour)
    except BadImageError as error:
        raise BadImageError(f"'{name}': {error}") from error


class FileImages:
    """Images in files below a folder, or members of a zip archive that is read in place.

    Attributes:
        forms: row → what its file holds, of the rows decoded so far that are not plain RGB.
    """

    def __init__(
        self,
        names: Sequence[str],
        root: str | Path,
        archive: str | Path | None = None,
        colour: Colour = "release",
    ) -> None:
        """Take the names of N images; nothing is opened yet.

        Args:
            names: paths below ``root`` (or absolute), or names of members of ``archive``.
            root: where relative names start.
            archive: a zip file that holds the images; a relative path starts at ``root``.
            colour: how they become RGB, see :mod:`dataset.picture_forms`.
        """
        self.names = tuple(names)
        self.root = Path(root)
        self.archive = None if archive is None else self.root / archive
        self.colour: Colour = colour
        self.forms: dict[int, str] = {}
        self._zip: tuple[int, zipfile.ZipFile] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_zip": None}

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of all names and of the content of each file, or of the archive; and of colour."""
        if self.archive is not None:
            contents = [content_digest(self.archive)]
        else:
            root = str(self.root)
            contents = content_digests([os.path.join(root, name) for name in self.names])
        colour = () if self.colour == "release" else (self.colour,)
        return digest("\0".join(self.names), " ".join(contents), *colour)

    def decode(self, row: int) -> np.ndarray:
        """Return the image of ``row``, RGB uint8 [H,W,3].

        Raises:
            BadImageError: it is missing or cannot be decoded; names the file.
        """
        read = functools.partial(self._read, self.names[row])
        pixels, form = decode_with_form(read, self.name(row), self.colour)
        if form != PLAIN:
            self.forms[row] = form
        return pixels

    def name(self, row: int) -> str:
        """Return the path of the image of ``row`` (archive: ``archive.zip/member``)."""
        return str((self.archive or self.root) / self.names[row])

    def take(self, rows: np.ndarray) -> FileImages:
        """Return the images of ``rows``, in that order."""
        return FileImages([self.names[row] for row in rows], self.root, self.archive, self.colour)

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
            path = self.root / name
            if special := special_kind(path):
                raise BadImageError(f"'{path}': it is {special}, not a file.")
            return path.read_bytes()
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

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the files of the rows alone, or of that of the source, and the rows."""
        if isinstance(self.source, FileImages):  # a few rows of many files are quickly known
            return self.source.take(self.rows).fingerprint
        return digest(self.source.fingerprint, self.rows.tobytes())

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
    check_plain_file(path)
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise UserError(f"Archive '{path}' does not exist (dataset.archive).") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"Archive '{path}' cannot be read as a zip file ({error}); dataset.archive takes .zip "
            "only, other archives must be extracted."
        ) from error


def look_again(source: ImageSource) -> None:
    """Have the fingerprint of a source follow its files, which may have changed since."""
    for part in getattr(source, "parts", ()):
        look_again(part)
    if isinstance(source, SelectedImages):
        look_again(source.source)
    if isinstance(getattr(type(source), "fingerprint", None), functools.cached_property):
        vars(source).pop("fingerprint", None)


def require_unchanged(source: ImageSource, fingerprint: str) -> None:
    """Refuse pictures that have changed while they were read.

    Raises:
        UserError: they have another fingerprint now.
    """
    look_again(source)
    if source.fingerprint != fingerprint:
        raise UserError(
            f"Pictures changed while they were read, '{source.name(0)}' or those after it "
            f"(fingerprint {fingerprint}, now {source.fingerprint}); start again when they rest."
        )


def in_threads(
    work: Callable[[int], T], n: int, title: str, per_core: int = 1, start: int = 0
) -> Iterator[T]:
    """Yield ``work(row)`` for rows ``start``..n-1, in order; shows progress.

    Rows are begun in chunks of ``ROWS_PER_CHUNK``, each when the one before was taken whole.
    """

    def work_on(row: int) -> T:
        with pixel_budget.kept():
            return work(row)

    with row_progress(title, n, start) as advance, thread_pool(per_core) as pool:
        for first in range(start, n, ROWS_PER_CHUNK):
            for result in pool.map(work_on, range(first, min(first + ROWS_PER_CHUNK, n))):
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
