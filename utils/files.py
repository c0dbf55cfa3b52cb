"""Atomic writing of files, digests, and sentences for errors of the file system."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.errors import UserError


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
        }
        if error.errno in reasons:
            raise UserError(f"Cannot {action} '{path}': {reasons[error.errno]}.") from error
        raise


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
        data = part.encode() if isinstance(part, str) else part
        total.update(f"{len(data)}:".encode())
        total.update(data)
    return total.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return the first 16 hex digits of the SHA-256 of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


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
