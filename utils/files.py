"""Writing files whole or not at all, checksums, and sentences for errors of the file system."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils import temporary
from utils.errors import UserError
from utils.fence import fenced

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("hashing")


@contextlib.contextmanager
def saying_why(path: Path, action: str = "write") -> Iterator[None]:
    """Turn a full disk, a read-only or forbidden folder into a :class:`UserError`."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full; free some space or choose another folder",
            errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
            errno.EACCES: "permission denied; choose a folder that you may write to",
            errno.EPERM: "permission denied; choose a folder that you may write to",
            errno.EROFS: "the file system is read-only; choose another folder",
            errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
            errno.EISDIR: "a folder of that name is in the way; choose another name",
            errno.EEXIST: "a file of that name is in the way; choose another folder",
            errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
            errno.ELOOP: "links lead in a circle; choose another folder",
        }
        reason = reasons.get(error.errno or 0)
        if error.errno == errno.ENOENT and error.filename in _names_of(path):
            reason = "no folder can be made there; choose another"
        if reason is None:
            raise
        raise UserError(f"Cannot {action} '{path}': {reason}.") from error


def _names_of(path: Path) -> list[str]:
    """Return the path and all folders above it, and the folder of its leases."""
    return [str(name) for name in (path, *path.parents, path.parent / ".claim")]


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` if the block succeeds.

    The block may create a file or a folder there. If it fails, ``path`` stays as it was. All of it
    is on the disk before the rename, and the rename before this returns, so that after a power
    failure there is the old or the new one, whole.
    """
    with saying_why(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.owned_folder(path.parent, path.name) as holder:
            made = holder / path.name
            yield made
            sync(made)
            with fenced(path):
                if made.is_dir() and path.is_dir():
                    os.rename(path, holder / "previous")
                os.replace(made, path)
            _sync_one(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on the disk."""
    if path.is_dir():
        for root, _, files in os.walk(path):
            for name in files:
                _sync_one(Path(root, name))
            _sync_one(Path(root))
    else:
        _sync_one(path)


def _sync_one(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # it has no such thing
            raise
    finally:
        os.close(file)


def sweep_debris(folder: Path) -> None:
    """Remove what ended processes left half-made in ``folder`` itself, and log what it freed."""
    count, freed = temporary.sweep(folder)
    if count:
        what = "entry" if count == 1 else "entries"
        words = f"removed {count} half-made {what} of ended processes from '{folder}'"
        log.warning("%s: %s freed", words, readable(freed))


def reserve(file: int, start: int, size: int) -> None:
    """Give ``size`` bytes from ``start`` of an open file space on the disk; they read as zeros.

    So a full disk is an error now, not the end of the process (SIGBUS) when mapped memory is
    written.

    Raises:
        OSError: ENOSPC and others.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, start, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    block = bytes(1 << 22)
    for offset in range(start, start + size, len(block)):
        write_at(file, block[: start + size - offset], offset)


def write_at(file: int, data: bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset`` of an open file; threads may do so concurrently."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest, offset = rest[written:], offset + written


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically (UTF-8)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, with keys in their given order."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def digest(*parts: str | bytes) -> str:
    """Return the first 16 hex digits of the SHA-256 over ``parts``, each with its length."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogateescape") if isinstance(part, str) else part
        total.update(f"{len(data)}:".encode())
        total.update(data)
    return total.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return the first 16 hex digits of the SHA-256 of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def check_plain_file(path: Path) -> None:
    """Refuse a pipe, a socket or a device, which to open may wait for ever; by stat, unopened.

    What does not exist, may not be looked at or is a folder is left to the opening.

    Raises:
        UserError: it is no plain file; says what it is.
    """
    special = special_kind(path)
    if special:
        raise UserError(f"'{path}' is {special}, not a file; give a plain file.")


def special_kind(path: Path) -> str:
    """Return ``"a pipe"``, ``"a socket"`` or ``"a device"``, or nothing for anything else."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return ""
    kinds = {
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "")


def array_digest(values: np.ndarray) -> str:
    """Return a hash of type, shape and values."""
    import numpy as np

    if values.dtype == object:  # its bytes are addresses
        return digest("object", repr(values.tolist()))
    return digest(f"{values.dtype} {values.shape}", np.ascontiguousarray(values).tobytes())


def size_and_time(path: Path) -> tuple[int, int]:
    """Return size in bytes and time of change in ns, or (-1, 0) for a missing file."""
    try:
        stats = path.stat()
    except OSError:
        return -1, 0
    return stats.st_size, stats.st_mtime_ns


def crc32(path: Path) -> str:
    """Return the CRC-32 of a file's content, 8 hex digits."""
    total = 0
    with open(path, "rb") as stream:
        while block := stream.read(1 << 22):
            total = zlib.crc32(block, total)
    return f"{total:08x}"


def free_space(path: Path) -> int:
    """Return the free bytes of the disk of ``path``, which need not exist."""
    folder = path.absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    with saying_why(path, "look at"):
        return shutil.disk_usage(folder).free


def readable(size: int) -> str:
    """Return a number of bytes in words.

    >>> readable(999), readable(1_500_000), readable(2_000_000_000)
    ('999 bytes', '1.5 MB', '2.0 GB')
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"
