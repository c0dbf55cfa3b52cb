"""Cache of generated images, decoded images and features of frozen encoders.

Everything is in one folder, ``.cache`` in the working directory or that of the environment variable
``HASHING_CACHE``, at ``<kind>/<key>``; the key is a hash of all that the entry depends on. So no
entry is ever stale, and the folder may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from utils.files import atomic_path, saying_why
from utils.heartbeat import heartbeat


def cache_root() -> Path:
    """Return the cache folder (which may not exist yet)."""
    return Path(os.environ.get("HASHING_CACHE", ".cache")).expanduser().resolve()


def cached(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """Return the cached file or folder ``kind/key``, built by ``build(temporary_path)`` if missing.

    ``build`` must create the path that it gets, as a file or as a folder. Several processes may
    call this at once: one builds, the others wait. A build that fails or is killed leaves nothing.
    """
    target = cache_root() / kind / key
    if target.exists():
        return target
    with locked(target.with_name(f"{key}.lock")):
        if not target.exists():
            with atomic_path(target) as temporary:
                build(temporary)
    return target


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
