"""Signs of life of the work that a process does, and the place where it may be told to stop.

Long work calls :func:`heartbeat` at every step, batch or message. Who supervises the process asks
:func:`quiet_for` how long ago the last sign was, and may hand in a guard that ends the work by
raising at its next sign of life, where that is safe.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

_last = time.monotonic()
_guards: list[Callable[[], None]] = []


def heartbeat() -> None:
    """Say that the work goes on; raises whatever a guard raises."""
    global _last
    _last = time.monotonic()
    for guard in _guards:
        guard()


def quiet_for() -> float:
    """Return the seconds since the last sign of life."""
    return time.monotonic() - _last


@contextlib.contextmanager
def watchdog(guard: Callable[[], None]) -> Iterator[None]:
    """Call ``guard`` at every sign of life while the block runs."""
    heartbeat()
    _guards.append(guard)
    try:
        yield
    finally:
        _guards.remove(guard)
