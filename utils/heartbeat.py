"""Heartbeats of long work, and watchdogs that may stop it.

Long work calls :func:`heartbeat` at every step, batch or message. A supervisor reads the seconds
since the last one (:func:`quiet_for`). A :func:`watchdog` is a function that runs at every
heartbeat and may end the work by raising there, where that is safe.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

_last = time.monotonic()
_watchdogs: list[Callable[[], None]] = []


def heartbeat() -> None:
    """Record that the work goes on, and run the watchdogs; raises their errors."""
    global _last
    _last = time.monotonic()
    for check in _watchdogs:
        check()


def quiet_for() -> float:
    """Return the seconds since the last heartbeat."""
    return time.monotonic() - _last


@contextlib.contextmanager
def watchdog(check: Callable[[], None]) -> Iterator[None]:
    """Call ``check`` at every heartbeat while the block runs."""
    heartbeat()
    _watchdogs.append(check)
    try:
        yield
    finally:
        _watchdogs.remove(check)
