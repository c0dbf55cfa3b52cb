"""Atomic writing of files, digests, and sentences for errors of the file system."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.fence import fenced


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

    The block may create a file or a folder there. If it fails, ``path`` stays as it was.
    """
    with saying_why(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        temporary = holder / path.name
        try:
            yield temporary
            with fenced(path):
                if temporary.is_dir() and path.is_dir():
                    os.rename(path, holder / "previous")
                os.replace(temporary, path)
        finally:
            shutil.rmtree(holder, ignore_errors=True)


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
