"""Temporary folders that say whose they are, so that what a killed process left can be removed.

The name of such a folder ends in ``.part-<host>-<boot>-<pid>-<random>`` (hashes of the host's name
and of its boot), and its maker holds a lock (``flock``) on the folder itself, which ends with the
process, however that ends. So on one kernel the lock decides, in whatever container. Where a file
system has no such locks, and for other hosts, only what nobody has changed for long is debris.

A folder whose name ends in ``.blocks`` holds work that the next process goes on with
(:mod:`common.storage.blocks`): it is debris when nobody holds it and nobody has changed it for a
week.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_NAME = re.compile(r"\..*\.part-([0-9a-f]{8})-([0-9a-f]{8})-(\d+)-[a-z0-9_]{8}", re.DOTALL)
_UNMARKED = re.compile(r"\..+\.[a-z0-9_]{8}", re.DOTALL)  # of earlier versions
BLOCKS = ".blocks"
"""End of the name of a folder of unfinished work that can be gone on with."""
_LONGEST = 100  # bytes of the target's name that are repeated in the folder's
HOUR_S, DAY_S, WEEK_S = 3600.0, 86400.0, 604800.0


@contextlib.contextmanager
def owned_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield a new folder in ``parent``, marked as this process's, and remove it in the end."""
    host, boot = _place()
    start = os.fsdecode(os.fsencode(name)[:_LONGEST])
    prefix = f".{start}.part-{host}-{boot}-{os.getpid()}-"
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # a sweeper came before our lock
            continue
        if _lock(lock) is not False and folder.is_dir():
            break
        os.close(lock)  # a sweeper took it for debris
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def held_folder(folder: Path) -> Iterator[Path]:
    """Yield ``folder``, made if it is missing, and keep sweepers from it; it stays in the end."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # a sweeper came before our lock
            continue
        if _lock(lock) is not False and folder.is_dir():
            break
        os.close(lock)  # a sweeper is at it
        time.sleep(0.01)
    try:
        yield folder
    finally:
        os.close(lock)


def sweep(folder: Path) -> tuple[int, int]:
    """Remove what makers that are gone left in ``folder`` itself; return its number and bytes."""
    count = freed = 0
    try:
        found = [e for e in os.scandir(folder) if e.name.startswith(".") or _is_blocks(e.name)]
    except OSError:
        return 0, 0
    for entry in found:
        if not entry.is_dir(follow_symlinks=False):
            continue
        path = Path(entry.path)
        with contextlib.suppress(OSError), _debris(path) as is_debris:
            if is_debris:
                size = _size(path)
                shutil.rmtree(path, ignore_errors=True)
                count, freed = count + 1, freed + size
    return count, freed


@contextlib.contextmanager
def _debris(folder: Path) -> Iterator[bool]:
    """Yield whether the maker of ``folder`` is gone, and hold the lock on it meanwhile."""
    if _is_blocks(folder.name):
        with _locked(folder) as have:
            yield have is not False and _unchanged_s(folder) > WEEK_S
        return
    marked = _NAME.fullmatch(folder.name)
    if marked is None:
        yield bool(_UNMARKED.fullmatch(folder.name)) and _unchanged_s(folder) > DAY_S
        return
    host, boot, pid = marked.groups()
    if (host, boot) != _place():
        yield _unchanged_s(folder) > (HOUR_S if host == _place()[0] else WEEK_S)
        return
    with _locked(folder) as have:
        if have is None:
            have = not Path(f"/proc/{pid}").exists() and _unchanged_s(folder) > HOUR_S
        yield have


def _is_blocks(name: str) -> bool:
    return name.endswith(BLOCKS)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool | None]:
    """Yield what :func:`_lock` says of ``folder``, and hold the lock meanwhile."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(lock)
    finally:
        os.close(lock)


def _lock(file: int) -> bool | None:
    """Lock an open folder; False: another process has it, None: there are no locks here."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@functools.cache
def _place() -> tuple[str, str]:
    """Return hashes of the host's name and of its boot, 8 hex digits each."""
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    host = socket.gethostname()
    return _short(host), _short(boot)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _inside(folder: Path) -> Iterator[os.stat_result]:
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files, "."):
            with contextlib.suppress(OSError):
                yield os.lstat(os.path.join(root, name))


def _unchanged_s(folder: Path) -> float:
    """Return the seconds since anything in ``folder`` changed."""
    return time.time() - max((stat.st_mtime for stat in _inside(folder)), default=time.time())


def _size(folder: Path) -> int:
    """Return the bytes that ``folder`` takes on its disk."""
    return sum(stat.st_blocks * 512 for stat in _inside(folder))
