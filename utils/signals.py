"""Handling of the signal that asks a process to end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def terminated_like_ctrl_c() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C while the block runs, so that its child processes are stopped too.

    Outside of the main thread, where Python cannot set handlers, nothing changes.

    Raises:
        KeyboardInterrupt: in the block, at SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        # None: a handler that was not set by Python, which cannot be restored here
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)
