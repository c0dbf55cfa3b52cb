"""The memory of this machine, and what a file may ask of it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from utils.errors import UserError
from utils.files import readable

MOST_INFLATED = 1100
"""Bytes that one deflated byte may stand for: deflate makes 1032 of one at most, and headers."""
_UNKNOWN = 16 * 2**30  # bytes that are assumed where the system does not say


def ram() -> tuple[int, int]:
    """Return the bytes of memory and of free memory; a container's limit counts; 0 if unknown."""
    values: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            name, number = line.split()[:2]
            values[name] = int(number) * 1024
    total, free = values.get("MemTotal:", 0), values.get("MemAvailable:", 0)
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())  # "max" is no number: no limit
        used = int((group / "memory.current").read_text())
        total, free = min(total, limit), min(free, max(limit - used, 0))
    return total, free


def check_fits(source: str, size: int) -> None:
    """Refuse what a file claims to hold, ``size`` bytes, before memory is asked for it.

    Raises:
        UserError: it is more than the whole memory of this machine, or negative.
    """
    total = ram()[0] or _UNKNOWN
    if not 0 <= size <= total:
        raise UserError(
            f"{source} claims {readable(size)}, more than the {readable(total)} of memory of this "
            "machine, so it is not read."
        )
