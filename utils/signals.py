"""Signals that ask a process to end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def terminated_like_ctrl_c() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C while the block runs, so that what it started is stopped with it.

    Outside of the main thread, where Python sets no handlers, nothing is changed.

    Raises:
        KeyboardInterrupt: in the block, when SIGTERM comes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        # None: a handler that was not set by Python, which cannot be put back from here
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
