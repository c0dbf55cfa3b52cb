"""What leases know of processes and time, and the text that a lease file holds."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import socket
import time
import uuid
from pathlib import Path
from typing import Any

HIDDEN = "hidden"
"""What :func:`started` says of a process that this one is not shown."""


@functools.cache
def place() -> str:
    """Return a name of the host, boot and namespaces in which process numbers and starts mean one.

    Where they cannot be read (containers of one host name would look alike) it is a name that no
    other process has, so that others are watched.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        parts = [socket.gethostname(), boot, os.readlink("/proc/self/ns/pid")]
    except OSError:
        return uuid.uuid4().hex
    with contextlib.suppress(OSError):  # of newer kernels
        parts.append(os.readlink("/proc/self/ns/time"))
    return " ".join(parts)


def started(pid: Any) -> str | None:
    """Return when a process of this host was started, in its own units; None: no such process.

    Or :data:`HIDDEN`: there is one, of another user, of which this one is shown no more.
    """
    if not isinstance(pid, int) or not 0 < pid < 1 << 31:
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            return HIDDEN
        return HIDDEN


def clock() -> float:
    """Return seconds that go on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def observers_clock() -> float:
    """Return seconds in which others could show signs of life: none while the machine sleeps."""
    return time.monotonic()


def content(record: dict[str, Any], beats: int, state: str = "held") -> bytes:
    """Return the text of a lease, always of one length; half of ``free`` is not ``free``."""
    return json.dumps({**record, "state": state, "beats": f"{beats:012d}"}).encode()


def parse(raw: bytes) -> dict[str, Any]:
    """Return the record in a lease file; empty where there is none."""
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def term(record: dict[str, Any], default: float) -> float:
    """Return the term that a record states, in seconds."""
    stated = record.get("lease_s")
    return stated if isinstance(stated, int | float) and math.isfinite(stated) else default
