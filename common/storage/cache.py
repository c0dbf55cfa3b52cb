"""Cache of generated images, decoded images and features of frozen encoders.

Everything is in one folder, ``.cache`` in the working directory or that of the environment variable
``HASHING_CACHE``, at ``<kind>/<key>``; the key is a hash of all that the entry depends on. So no
entry is ever stale, and the folder may be deleted at any time. Beside every entry stand its
checksums (:mod:`common.storage.checksums`); a damaged entry is built again, and what a killed
builder left is removed at the next use, or gone on with (:mod:`common.storage.blocks`).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from common.storage.blocks import Blocks, entry_by_blocks
from common.storage.checksums import damage, drop, seal
from utils.files import atomic_path, saying_why, sweep_debris
from utils.heartbeat import heartbeat

log = logging.getLogger("hashing")
T = TypeVar("T")
_once_s, _depth = 0.0, 0


def cache_root() -> Path:
    """Return the cache folder (which may not exist yet)."""
    return Path(os.environ.get("HASHING_CACHE", ".cache")).expanduser().resolve()


def cached(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """Return the cached file or folder ``kind/key``, built by ``build(temporary_path)`` if missing.

    ``build`` must create the path that it gets, as a file or as a folder. Several processes may
    call this at once: one builds, the others wait. A build that fails leaves nothing; a damaged
    entry is built again, with a line in the log.
    """
    return _made(kind, key, new_entry, build)


def cached_by_blocks(kind: str, key: str, build: Callable[[Blocks], None]) -> Path:
    """Return the same, of long work: ``build`` goes on behind the blocks that are finished.

    What it had committed when it failed or was killed stays for the next call.
    """
    return _made(kind, key, entry_by_blocks, build)


def _made(
    kind: str, key: str, entry: Callable[[Path], AbstractContextManager[T]],
    build: Callable[[T], None],
) -> Path:  # fmt: skip
    target = cache_root() / kind / key
    sweep_debris(target.parent)
    if is_whole(target):
        return target
    with counted_once(), locked(target.with_name(f"{key}.lock")):
        if not whole_or_removed(target):
            with entry(target) as making:
                build(making)
    return target


@contextlib.contextmanager
def counted_once() -> Iterator[None]:
    """Count the seconds of the block as spent on something that other runs find made."""
    global _once_s, _depth
    start = time.perf_counter()
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            _once_s += time.perf_counter() - start


def once_s() -> float:
    """Return the seconds that this process has spent on making entries, or on waiting for them."""
    return _once_s


def is_whole(target: Path) -> bool:
    """Tell whether an entry is there, and as it was written."""
    return damage(target) is None


def whole_or_removed(target: Path) -> bool:
    """Tell the same, having removed a damaged entry and said so; call it under the lock."""
    reason = damage(target)
    if reason is None:
        return True
    if target.exists():
        log.warning("the cache entry '%s' is damaged (%s): it is built again", target, reason)
        with saying_why(target, "remove"):
            shutil.rmtree(target) if target.is_dir() else target.unlink()
    drop(target)
    return False


@contextlib.contextmanager
def new_entry(target: Path) -> Iterator[Path]:
    """Yield a temporary path for a new entry, which gets its name and its checksums at the end."""
    with atomic_path(target) as temporary:
        yield temporary
    seal(target)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (created if missing); it ends with the process."""
    with saying_why(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(path, "a")  # noqa: SIM115 - closed below
    with stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                heartbeat()  # waiting is not hanging
                time.sleep(0.05)
        yield
