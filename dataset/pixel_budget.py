"""How many pixels threads decode at once, for each of many pictures may be as large as is safe."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

MOST_PIXELS = 2**27  # 400 MB of RGB


class PixelBudget:
    """Holds threads back while others have many pixels; a thread that has some never waits."""

    def __init__(self, most: int = MOST_PIXELS) -> None:
        """Allow ``most`` pixels at once, or one picture of more."""
        self._most = most
        self.forget()

    def forget(self) -> None:
        """Start anew: in a forked process, what other threads held is gone."""
        self._total = 0
        self._changed = threading.Condition()
        self._own = threading.local()

    @contextlib.contextmanager
    def decoding(self, pixels: int) -> Iterator[None]:
        """Take ``pixels``, until the end of the block, or of :meth:`kept` around it."""
        kept = getattr(self._own, "pixels", None)
        with self._changed:
            if not kept:
                self._changed.wait_for(
                    lambda: not self._total or self._total + pixels <= self._most
                )
            self._total += pixels
        if kept is not None:
            self._own.pixels = kept + pixels
        try:
            yield
        finally:
            if kept is None:
                self._give_back(pixels)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Keep what this thread decodes in the block until its end: it works with the pixels."""
        self._own.pixels = 0
        try:
            yield
        finally:
            pixels = self._own.pixels
            del self._own.pixels
            self._give_back(pixels)

    def _give_back(self, pixels: int) -> None:
        with self._changed:
            self._total -= pixels
            self._changed.notify_all()


pixel_budget = PixelBudget()
"""That of this process."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pixel_budget.forget)
