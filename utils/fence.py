"""Fences: a folder that only its owner may write into, whoever else still believes to own it.

Who owns a folder for a while registers a guard for it (:func:`fence`). What writes or removes
something there does the step that cannot be undone (a rename, a line added) in :func:`fenced`,
which enters the guard: it keeps others from taking over, or raises because another has.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

Guard = Callable[[], contextlib.AbstractContextManager[None]]
_guards: list[tuple[Path, Guard]] = []


@contextlib.contextmanager
def fence(folder: Path, guard: Guard) -> Iterator[None]:
    """Enter ``guard()`` for every write in ``folder`` while the block runs."""
    entry = (_absolute(folder), guard)
    _guards.append(entry)
    try:
        yield
    finally:
        _guards.remove(entry)


@contextlib.contextmanager
def fenced(path: Path) -> Iterator[None]:
    """Write, replace or remove ``path`` in this block; raises what a guard of its folder raises."""
    with contextlib.ExitStack() as stack:
        for folder, guard in _guards:
            if _absolute(path).is_relative_to(folder):
                stack.enter_context(guard())
        yield


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))
