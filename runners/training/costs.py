"""Costs of a run: seconds by phase, and peak memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

_PROC = Path("/proc/self")
_MB = 1_000_000
T = TypeVar("T")


class Clock:
    """Adds up seconds under names; a name may come again.

    Of phases within phases each second counts for the innermost alone.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner: list[float] = []  # for each open phase, the seconds of phases within it

    def add(self, name: str, seconds: float) -> None:
        """Add seconds that were measured elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds of the block, however it ends."""
        start = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            total = time.perf_counter() - start
            self.add(name, total - self._inner.pop())
            if self._inner:
                self._inner[-1] += total

    def waiting(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Yield the items of an iterable, and add the seconds of waiting for each."""
        iterator, end = iter(items), object()
        while True:
            with self.phase(name):
                item = next(iterator, end)
            if item is end:
                return
            yield cast(T, item)


class PeakMemory:
    """The peak memory of this process since the object was created.

    A worker does many runs in one process, so the kernel's high-water mark is reset first. Where
    that is not possible (no ``/proc``, not permitted) the mark is of the process so far, and
    :meth:`read` says so. Memory-mapped features and pictures count while they are in memory. Under
    several processes each has its own; the first one's is written.
    """

    def __init__(self, device: torch.device) -> None:
        """Reset the peaks, that of ``device`` as well where it is a GPU."""
        self.device = device
        self.of = "run" if _reset_high_water() else "process so far"
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def read(self) -> dict[str, Any]:
        """Return ``peak_mb`` (10⁶ bytes), ``of``, and on a GPU ``device_peak_mb``."""
        memory: dict[str, Any] = {"peak_mb": round(_high_water() / _MB, 1), "of": self.of}
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
            memory["device_peak_mb"] = round(peak / _MB, 1)
        return memory


def _reset_high_water() -> bool:
    """Set the kernel's high-water mark of this process to its present memory, where permitted."""
    try:
        (_PROC / "clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _high_water() -> int:
    """Return the high-water mark of resident memory in bytes."""
    with contextlib.suppress(OSError):
        for line in (_PROC / "status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
