"""Read every image once, in threads: sizes and content hashes, saved as the scan proceeds."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np

from dataset.base import BadImageError, ImageSource
from dataset.images import ROWS_PER_CHUNK, FileImages, thread_pool
from dataset.preparation.index import DIGEST_BYTES
from utils.files import atomic_path, digest, special_kind
from utils.progress import progress_bar

_BLOCK = 1 << 20
THREADS_PER_CORE = 4  # reading waits for the disk


@dataclasses.dataclass(frozen=True)
class ScannedImages:
    """Sizes and digests of n images.

    Attributes:
        sizes: int64 [n], bytes; -1 for a missing image.
        digests: uint8 [n,16], of the file's content, or of the pixels where an image is no file.
    """

    sizes: np.ndarray
    digests: np.ndarray


def scan(images: ImageSource, journal: Path) -> ScannedImages:
    """Read all images, several at a time.

    A scan that was killed resumes from ``journal``, a folder of finished chunks, which the caller
    removes. Rows whose file has changed since are read again.
    """
    n = len(images)
    chunks = [range(start, min(start + ROWS_PER_CHUNK, n)) for start in range(0, n, ROWS_PER_CHUNK)]
    scanned = ScannedImages(np.full(n, -1, np.int64), np.zeros((n, DIGEST_BYTES), np.uint8))
    journal.mkdir(parents=True, exist_ok=True)

    def read(row: int) -> tuple[int, np.ndarray]:
        return image_digest(images, row)

    with progress_bar("reading pictures", n) as advance, thread_pool(THREADS_PER_CORE) as pool:
        for rows in chunks:
            stamps, sizes, digests = _read_chunk(images, rows, journal)
            unread = [row for row in rows if sizes[row - rows.start] == _UNREAD]
            for row, (size, value) in zip(unread, pool.map(read, unread), strict=True):
                sizes[row - rows.start], digests[row - rows.start] = size, value
            if unread:
                with (
                    atomic_path(_chunk_file(images, rows, journal)) as temporary,
                    open(temporary, "wb") as stream,
                ):
                    np.savez(stream, stamps=stamps, sizes=sizes, digests=digests)
            scanned.sizes[rows.start : rows.stop] = sizes
            scanned.digests[rows.start : rows.stop] = digests
            advance(len(rows))
    return scanned


def remove_journal(journal: Path) -> None:
    """Remove the chunks that a scan has saved."""
    shutil.rmtree(journal, ignore_errors=True)


_UNREAD = -2
_BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)  # of a chunk


def _read_chunk(
    images: ImageSource, rows: range, journal: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return stamps, sizes and digests of a chunk; the size of an unread row is _UNREAD."""
    stamps = np.array([_stamp(images, row) for row in rows], np.int64)
    sizes = np.full(len(rows), _UNREAD, np.int64)
    digests = np.zeros((len(rows), DIGEST_BYTES), np.uint8)
    file = _chunk_file(images, rows, journal)
    if file.is_file():
        with contextlib.suppress(*_BROKEN), np.load(file) as chunk:
            same = (chunk["stamps"] == stamps).all(1)
            sizes[same], digests[same] = chunk["sizes"][same], chunk["digests"][same]
    return stamps, sizes, digests


def _chunk_file(images: ImageSource, rows: range, journal: Path) -> Path:
    names = digest("\n".join(images.name(row) for row in rows))
    return journal / f"{rows.start:08d}-{names}.npz"


def image_file(images: ImageSource, row: int) -> Path | None:
    """Return the file of an image; None where the image is no file (of an archive, a record)."""
    if isinstance(images, FileImages) and images.archive is None:
        return images.root / images.names[row]
    return None


def file_size(images: ImageSource, row: int) -> int | None:
    """Return the size of an image file in bytes (-1: missing); None where the image is no file."""
    file = image_file(images, row)
    if file is None:
        return None
    return file.stat().st_size if file.is_file() else -1


def _stamp(images: ImageSource, row: int) -> tuple[int, ...]:
    """Return what ``stat`` says of an image file; zeros where the image is no file or missing."""
    file = image_file(images, row)
    try:
        status = None if file is None else file.stat()
    except OSError:
        status = None
    if status is None:
        return 0, 0, 0, 0
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def image_digest(images: ImageSource, row: int) -> tuple[int, np.ndarray]:
    """Return size in bytes (-1: missing) and digest, uint8 [16], of an image's content."""
    total, size, file = hashlib.sha256(), 0, image_file(images, row)
    if file is not None and special_kind(file):
        return -1, np.zeros(DIGEST_BYTES, np.uint8)
    try:
        if file is not None:
            with open(file, "rb") as stream:
                while block := stream.read(_BLOCK):
                    total.update(block)
                    size += len(block)
        else:
            pixels = images.decode(row)
            total.update(repr(pixels.shape).encode())
            total.update(np.ascontiguousarray(pixels).data)
            size = pixels.nbytes
    except (BadImageError, FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return -1, np.zeros(DIGEST_BYTES, np.uint8)
    return size, np.frombuffer(total.digest()[:DIGEST_BYTES], np.uint8)
