"""Leases: one worker at a time on a target, whatever becomes of the worker, on any number of hosts.

A lease on ``folder/name`` is the file ``folder/.claim/name.<n>`` with the highest number n. Making
a file of a name that must not exist yet is atomic on local and network file systems, so exactly one
process ever gets number n + 1, and it may try only when number n is *stale*:

- its owner lived on this host (same boot, same process namespace) and is gone, or
- its content has not changed for ``lease_s`` seconds of the *observer's* own clock. The owner
  writes a new count into it six times in that term. No two clocks are ever compared.

The owner writes through the file that it opened, so it can never write into a successor's lease. An
owner that was stopped for half a term (a suspended laptop, SIGSTOP) takes number n + 1 before it
goes on, or learns that another process has: :class:`LeaseLostError`. Two processes could hold one
lease only if a file system hid the owner's writes for a whole term; with NFS keep ``lease_s`` above
its attribute cache (60 s).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

LEASE_S = 90.0
BEATS = 6  # per term


class LeaseLostError(Exception):
    """The lease was stale for a whole term, and another worker has taken it over."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who has a lease, by its file.

    Attributes:
        number: of the lease file.
        raw: its bytes, compared as a whole to see whether the owner beats.
        record: its content, or ``{}`` where it cannot be read (its maker was killed at once).
    """

    number: int
    raw: bytes
    record: dict[str, Any]

    @property
    def is_here(self) -> bool:
        """Whether the owner lives, or lived, on this host."""
        return self.record.get("place") == _host_identity()

    @property
    def is_gone(self) -> bool:
        """Whether the owner is known to have ended."""
        return self.is_here and _started(self.record.get("pid", 0)) != self.record.get("born")

    def __str__(self) -> str:
        return f"process {self.record.get('pid', '?')} on {self.record.get('host', 'a host')}"


class Lease:
    """A lease that this process holds; as a context manager it beats until the block is left."""

    def __init__(self, target: Path, number: int, record: dict[str, Any], stream: int) -> None:
        """Take a lease file that :class:`Leases` has just made."""
        self.target = target
        self.number = number
        self.record = record
        self.lost = False
        self._stream = stream
        self._last = _clock()
        self._beats = 0
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def losses(self) -> int:
        """How many owners in a row were lost before this one without having got anywhere."""
        return int(self.record["losses"])

    def __enter__(self) -> Lease:
        self._thread = threading.Thread(target=self._keep_beating, daemon=True, name="lease")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def check(self) -> None:
        """Make sure that the lease is still ours.

        Raises:
            LeaseLostError: it is not.
        """
        self.beat()
        if self.lost:
            raise LeaseLostError(f"'{self.target}' has been taken over by another worker")

    def check_often(self) -> None:
        """Check where that costs a look at the clock only, unless we were stopped for long.

        Raises:
            LeaseLostError: the lease is another's.
        """
        if self.lost or _clock() - self._last > self.record["lease_s"] / 2:
            self.check()

    def beat(self) -> None:
        """Write a new count; after a long silence, first check that no other process took over."""
        with self._lock:
            if self.lost:
                return
            now = _clock()
            if now - self._last > self.record["lease_s"] / 2:
                self._renew()
                return
            self._beats += 1
            with contextlib.suppress(OSError):  # a beat that fails lengthens the silence
                os.pwrite(self._stream, _content(self.record, self._beats), 0)
                os.fsync(self._stream)
                self._last = now

    def _renew(self) -> None:
        stream = _create(self.target, self.number + 1, self.record)
        if stream is None:
            self.lost = True
            return
        old, new = (_file(self.target, number) for number in (self.number, self.number + 1))
        if not old.exists():  # another took over, and has given its lease up by now
            os.close(stream)
            new.unlink(missing_ok=True)
            self.lost = True
            return
        old.unlink(missing_ok=True)
        os.close(self._stream)
        self._stream, self._last = stream, _clock()
        self.number += 1

    def _keep_beating(self) -> None:
        while not self._end.wait(self.record["lease_s"] / BEATS):
            self.beat()

    def release(self) -> None:
        """Give the lease up; it vanishes, unless it is another's by now."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.beat()
        with self._lock:
            if not self.lost:
                _file(self.target, self.number).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # other targets may have leases there
                    self.target.parent.joinpath(".claim").rmdir()
            self.lost = True
            with contextlib.suppress(OSError):
                os.close(self._stream)


class Leases:
    """Takes leases, and watches those of other processes to see which are stale."""

    def __init__(self, lease_s: float = LEASE_S) -> None:
        """Set the term of the leases that this process takes, in seconds."""
        self.lease_s = lease_s
        self._seen: dict[Path, tuple[int, bytes, float]] = {}
        self._beating: set[Path] = set()

    def take(self, target: Path, mark: str = "") -> Lease | None:
        """Return a lease on ``target``, or None while another has it.

        Args:
            target: the path to lease; need not exist.
            mark: the progress of the work on it, in any words; see :attr:`Lease.losses`.
        """
        held = self.holder(target)
        if held is not None and not self._is_stale(target, held):
            return None
        losses = 0
        if held is not None and held.record.get("mark", "") == mark:
            losses = int(held.record.get("losses", 0)) + 1
        record = {
            "owner": uuid.uuid4().hex, "host": socket.gethostname(), "place": _host_identity(),
            "pid": os.getpid(), "born": _started(os.getpid()), "lease_s": self.lease_s,
            "losses": losses, "mark": mark,
        }  # fmt: skip
        number = held.number + 1 if held is not None else 1
        stream = _create(target, number, record)
        if stream is None:
            return None
        self._seen.pop(target, None)
        older = [n for n in _numbers(target) if n != number]
        if older and max(older) > number:  # our listing was an old one
            _file(target, number).unlink(missing_ok=True)
            os.close(stream)
            return None
        for superseded in older:
            _file(target, superseded).unlink(missing_ok=True)
        return Lease(target, number, record, stream)

    def holder(self, target: Path) -> Holder | None:
        """Return who has the lease on ``target``, stale or not."""
        for _ in range(3):  # it may be released while we look
            numbers = _numbers(target)
            if not numbers:
                return None
            try:
                raw = _file(target, max(numbers)).read_bytes()
            except OSError:
                continue
            return Holder(max(numbers), raw, _parse(raw))
        return None

    def beats(self, target: Path) -> bool:
        """Return whether the owner of ``target`` was seen to beat since we began to watch it."""
        return target in self._beating

    def _is_stale(self, target: Path, held: Holder) -> bool:
        if held.is_gone:
            return True
        number, raw, since = self._seen.get(target, (0, b"", 0.0))
        if (number, raw) != (held.number, held.raw):
            if number:
                self._beating.add(target)
            self._seen[target] = (held.number, held.raw, time.monotonic())
            return False
        return time.monotonic() - since > float(held.record.get("lease_s", self.lease_s))


def is_alive(record: dict[str, Any]) -> bool:
    """Return whether the process that :func:`this_process` described may still be running."""
    return record.get("place") != _host_identity() or _started(record.get("pid", 0)) == record.get(
        "born"
    )


def this_process() -> dict[str, Any]:
    """Return what :func:`is_alive` needs to recognise this process."""
    return {"place": _host_identity(), "pid": os.getpid(), "born": _started(os.getpid())}


def _file(target: Path, number: int) -> Path:
    return target.parent / ".claim" / f"{target.name}.{number}"


def _numbers(target: Path) -> list[int]:
    """Return the numbers of the lease files on ``target``."""
    try:
        names = os.listdir(target.parent / ".claim")
    except OSError:
        return []
    split = (name.rpartition(".") for name in names)
    return [int(n) for name, _, n in split if name == target.name and n.isdigit()]


def _create(target: Path, number: int, record: dict[str, Any]) -> int | None:
    """Make a lease file and return it open, or None where there is one of this number."""
    path = _file(target, number)
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            stream = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        except FileExistsError:
            return None
        except FileNotFoundError:  # the last lease of the folder was just released
            continue
        os.write(stream, _content(record, 0))
        os.fsync(stream)
        return stream


def _content(record: dict[str, Any], beats: int) -> bytes:
    return json.dumps({**record, "beats": f"{beats:012d}"}).encode()  # always of one length


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        record = json.loads(raw)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


@functools.cache
def _host_identity() -> str:
    """Return a name of this host, boot and process namespace: where a process number means one."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _started(pid: int) -> str | None:
    """Return when a process of this host was started, in its own units; None: no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self").exists() or pid <= 0:
            return None
        try:
            os.kill(pid, 0)
        except OSError:
            return None
        return "running"
    return None if fields[0] in "ZX" else fields[19]


def _clock() -> float:
    """Return seconds that go on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
