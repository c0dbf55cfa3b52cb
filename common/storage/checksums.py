"""Checksums of cache entries: whole or damaged, asked at every use.

Beside an entry ``<key>`` (a file or a folder) stands ``<key>.sums``, a JSON object: file below the
entry → its size, CRC-32 of every 64 MiB, and its *stamp* when these were last found right: inode,
size, and times of content and inode in ns. A file with that stamp is taken for whole without being
read; any other is read again, in threads. So an entry costs a few microseconds at each use, and one
reading when it was copied or touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import write_json
from utils.heartbeat import heartbeat

BLOCK = 1 << 26
_PIECE = 1 << 22
_SUFFIX = ".sums"


def seal(entry: Path) -> None:
    """Write the checksums of a finished entry, a file or a folder."""
    files = {name: _record(entry / name) for name in _names(entry)}
    write_json(_sums_file(entry), files)


def move_sealed(entry: Path, target: Path) -> None:
    """Seal a finished entry and rename it and its checksums; a kill in between loses neither."""
    seal(entry)
    os.replace(_sums_file(entry), _sums_file(target))
    os.replace(entry, target)
    sums = json.loads(_sums_file(target).read_text(encoding="utf-8"))
    for name, record in sums.items():  # a rename changes the time of the inode alone
        record["stamp"] = stamp_of(target / name)
    write_json(_sums_file(target), sums)


def damage(entry: Path) -> str | None:
    """Return what is wrong with an entry, in words for a message; None: it is whole."""
    if not entry.exists():
        return "it is missing"
    try:
        records = json.loads(_sums_file(entry).read_text(encoding="utf-8"))
        expected = {name: (r["bytes"], r["crc32"], r["stamp"]) for name, r in records.items()}
    except FileNotFoundError:
        return "it has no checksums"
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return "its checksums cannot be read"
    if set(expected) != set(_names(entry)):
        return "a file of it is missing or was added"
    stale = False
    for name, (size, sums, stamp) in expected.items():
        file = entry / name
        try:
            if stamp_of(file) == stamp:
                continue
            if file.stat().st_size != size:
                return f"'{file.name}' has {file.stat().st_size} bytes, not {size}"
            if _block_sums(file) != sums:
                return f"the checksum of '{file.name}' differs"
        except OSError as error:
            return f"'{file.name}' cannot be read ({error})"
        stale = True
    if stale:
        with contextlib.suppress(UserError, OSError):  # a cache may be read-only
            seal(entry)
    return None


def drop(entry: Path) -> None:
    """Remove the checksums of an entry."""
    _sums_file(entry).unlink(missing_ok=True)


def stamp_of(file: Path) -> list[int]:
    """Return inode, size, and times of content and inode in ns; they change with the file."""
    stat = file.stat()
    return [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _sums_file(entry: Path) -> Path:
    return entry.with_name(f"{entry.name}{_SUFFIX}")


def _names(entry: Path) -> list[str]:
    """Return the files of an entry relative to it; of a file, ``.``."""
    if entry.is_file():
        return ["."]
    found = (p for p in sorted(entry.rglob("*")) if p.is_file())
    return [path.relative_to(entry).as_posix() for path in found]


def _record(file: Path) -> dict[str, Any]:
    stamp = stamp_of(file)  # before the reading: what changes meanwhile is read again
    return {"bytes": stamp[1], "crc32": _block_sums(file), "stamp": stamp}


def _block_sums(file: Path) -> list[str]:
    """Return the CRC-32 of every block, 8 hex digits each, computed in threads."""
    starts = range(0, file.stat().st_size, BLOCK)
    if len(starts) < 2:
        return [_sum_of_block(file, start) for start in starts]
    with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
        return list(_beating(pool.map(lambda start: _sum_of_block(file, start), starts)))


def _beating(values: Iterator[str]) -> Iterator[str]:
    for value in values:
        heartbeat()  # reading many GB is not hanging
        yield value


def _sum_of_block(file: Path, start: int) -> str:
    total = 0
    with open(file, "rb") as stream:
        stream.seek(start)
        for _ in range(BLOCK // _PIECE):
            total = zlib.crc32(stream.read(_PIECE), total)
    return f"{total:08x}"
