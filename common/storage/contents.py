"""Files by their content: each is read once, and known by what ``stat`` says of it afterwards.

``<cache>/contents/files.bin`` holds a record of 64 bytes for every file that was read: device,
inode, size, times of change of content (``mtime``) and of anything (``ctime``) in ns, the first
half of the SHA-256 of all its bytes, and a checksum of the record. A file whose five numbers are
recorded costs a ``stat``; others are read. Records are only ever added; the file may be deleted.

What is found: other bytes under the same name, also with size and time set back. A file that is
renamed onto another brings its inode, and writing into a file, or setting its time, sets ``ctime``,
which no program can choose. A file changed less than ``SETTLED_NS`` before it is read is not
recorded, because a further change could fall into the same tick of the clock.

What cannot be found: bytes changed below the file system (a disk written directly, a damaged one),
a clock that root sets back to the very tick, and file systems that keep no ``ctime`` (FAT, some
mounted remotely), where equal size and time pass for the same content.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import stat
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common.storage.cache import cache_root, locked
from utils.files import saying_why
from utils.heartbeat import heartbeat
from utils.progress import progress_bar

SETTLED_NS = 2_000_000_000
_STAMP = struct.Struct("<QQqqq")  # device, inode, size, mtime, ctime
_DIGEST_BYTES = 16
_RECORD_BYTES = 64  # stamp, digest, crc32, 4 zeros
_FILES_PER_STEP = 1024  # records are written after so many, so that a killed process loses few


def content_digest(file: str | Path) -> str:
    """Return the content of one file, as :func:`content_digests` does."""
    return content_digests([file])[0]


def content_digests(files: Sequence[str | Path]) -> list[str]:
    """Return 32 hex digits of the SHA-256 of each file's bytes; "" for what is no readable file.

    Files that are not recorded are read in threads, with a bar on a terminal.
    """
    store = _store(cache_root() / "contents" / "files.bin")
    stamps = [_stamp(file) for file in files]
    store.refresh()
    found = [store.digests.get(stamp, "") for stamp in stamps]
    unread = [row for row, stamp in enumerate(stamps) if stamp and not found[row]]
    if unread:
        with progress_bar("reading files once", len(unread)) as advance:
            for start in range(0, len(unread), _FILES_PER_STEP):
                rows = unread[start : start + _FILES_PER_STEP]
                known = {}
                for row, read in zip(rows, _in_threads([files[r] for r in rows]), strict=True):
                    found[row] = read.digest
                    if read.stamp:
                        known[read.stamp] = read.digest
                store.add(known)
                heartbeat()
                advance(len(rows))
    return found


@dataclasses.dataclass(frozen=True)
class _Read:
    """The digest of a file that was read, and the stamp to record it by (b"": not to record)."""

    digest: str = ""
    stamp: bytes = b""


class _Store:
    """The records of one file, as far as this process has read them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.digests: dict[bytes, str] = {}
        self._read_bytes = 0
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Read the records that were added since; a damaged one counts as none."""
        with self._lock:
            try:
                size = self.path.stat().st_size
                if size < self._read_bytes:  # deleted and begun anew
                    self._read_bytes = 0
                    self.digests.clear()
                if size - self._read_bytes < _RECORD_BYTES:
                    return
                with open(self.path, "rb") as stream:
                    stream.seek(self._read_bytes)
                    data = stream.read(size - self._read_bytes)
            except OSError:
                return
            whole = len(data) // _RECORD_BYTES * _RECORD_BYTES
            self.digests.update(_records(data[:whole]))
            self._read_bytes += whole

    def add(self, known: dict[bytes, str]) -> None:
        """Append records; a torn one at the end, of a process that was killed, is cut off."""
        if not known:
            return
        self.digests.update(known)
        parts = []
        for stamp, value in known.items():
            content = stamp + bytes.fromhex(value)
            parts.append(content + struct.pack("<II", zlib.crc32(content), 0))
        with (
            locked(self.path.with_suffix(".lock")),
            saying_why(self.path),
            open(self.path, "ab") as stream,
        ):
            size = stream.tell()
            if size % _RECORD_BYTES:
                stream.truncate(size - size % _RECORD_BYTES)
            stream.write(b"".join(parts))


@functools.cache
def _store(path: Path) -> _Store:
    return _Store(path)


def _records(data: bytes) -> Iterator[tuple[bytes, str]]:
    end = _STAMP.size + _DIGEST_BYTES
    for start in range(0, len(data), _RECORD_BYTES):
        content = data[start : start + end]
        if data[start + end : start + end + 4] == zlib.crc32(content).to_bytes(4, "little"):
            yield content[: _STAMP.size], content[_STAMP.size :].hex()


def _stamp(file: str | Path) -> bytes:
    """Return what identifies a file as it is now; b"" where there is no regular one."""
    try:
        return _packed(os.stat(file))
    except (OSError, ValueError):  # a NUL in its name
        return b""


def _packed(status: os.stat_result) -> bytes:
    if not stat.S_ISREG(status.st_mode):
        return b""
    return _STAMP.pack(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def _in_threads(files: Sequence[str | Path]) -> list[_Read]:
    if len(files) == 1:
        return [_read(files[0])]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(min(2 * (cores or 1), 32)) as pool:  # reading waits for the disk
        return list(pool.map(_read, files))


def _read(file: str | Path) -> _Read:
    """Read a file; it is not to be recorded if it changes meanwhile, or did a moment ago."""
    try:
        with open(file, "rb") as stream:
            before = os.fstat(stream.fileno())
            start = time.time_ns()
            value = hashlib.file_digest(stream, "sha256").hexdigest()[: 2 * _DIGEST_BYTES]
            after = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return _Read()
    settled = start - after.st_ctime_ns > SETTLED_NS and _packed(before) == _packed(after)
    return _Read(value, _packed(after) if settled else b"")
