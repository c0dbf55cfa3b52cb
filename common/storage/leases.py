"""Claims: one worker at a time on a thing, whatever becomes of the worker, on any number of hosts.

A claim on ``folder/name`` is the file ``folder/.claim/name.<n>`` with the highest number n. Making
a file of a name that must not exist yet is atomic on local and network file systems, so exactly one
process ever gets number n + 1, and it may try only when number n is *stale*:

- its owner lived on this host (same boot, same process namespace) and is gone, or
- its content has not changed for ``lease_s`` seconds of the *observer's* own clock. The owner
  writes a new count into it six times a lease. No two clocks are ever compared.

The owner writes through the file that it opened, so it can never write into a successor's claim. An
owner that was stopped for half a lease (a suspended laptop, SIGSTOP) claims anew by number n + 1
before it goes on, or learns that another one has: :class:`ClaimLostError`. Two processes could be
at one thing only if a file system hid the owner's writes for a whole lease; with NFS keep
``lease_s`` above its attribute cache (60 s).
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
BEATS = 6  # per lease


class ClaimLostError(Exception):
    """The claim was stale for a lease, and another worker has taken it over."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who has a claim, by its file.

    Attributes:
        number: of the claim file.
        raw: its content, compared as a whole to see whether the owner beats.
        told: the content, or ``{}`` where it cannot be read (its maker was killed at once).
    """

    number: int
    raw: bytes
    told: dict[str, Any]

    @property
    def is_here(self) -> bool:
        """Whether the owner lives, or lived, on this host."""
        return self.told.get("place") == _place()

    @property
    def is_gone(self) -> bool:
        """Whether the owner is known to have ended."""
        return self.is_here and _started(self.told.get("pid", 0)) != self.told.get("born")

    def __str__(self) -> str:
        return f"process {self.told.get('pid', '?')} on {self.told.get('host', 'a host')}"


class Claim:
    """A claim that this process holds; as a context manager it beats until the block is left."""

    def __init__(self, target: Path, number: int, told: dict[str, Any], stream: int) -> None:
        """Take a claim file that :class:`Claims` has just made."""
        self.target = target
        self.number = number
        self.told = told
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
        return int(self.told["losses"])

    def __enter__(self) -> Claim:
        self._thread = threading.Thread(target=self._keep_beating, daemon=True, name="claim")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def check(self) -> None:
        """Make sure that the claim is still ours.

        Raises:
            ClaimLostError: it is not.
        """
        self.beat()
        if self.lost:
            raise ClaimLostError(f"'{self.target}' has been taken over by another worker")

    def check_often(self) -> None:
        """Check where that costs a look at the clock only, unless we were stopped for long.

        Raises:
            ClaimLostError: the claim is another's.
        """
        if self.lost or _clock() - self._last > self.told["lease_s"] / 2:
            self.check()

    def beat(self) -> None:
        """Tell the others that we live; after a long silence, ask first whether they gave us up."""
        with self._lock:
            if self.lost:
                return
            now = _clock()
            if now - self._last > self.told["lease_s"] / 2:
                self._renew()
                return
            self._beats += 1
            with contextlib.suppress(OSError):  # a beat that fails lengthens the silence
                os.pwrite(self._stream, _content(self.told, self._beats), 0)
                os.fsync(self._stream)
                self._last = now

    def _renew(self) -> None:
        stream = _create(self.target, self.number + 1, self.told)
        if stream is None:
            self.lost = True
            return
        old, new = (_file(self.target, number) for number in (self.number, self.number + 1))
        if not old.exists():  # another took over, and has given its claim up by now
            os.close(stream)
            new.unlink(missing_ok=True)
            self.lost = True
            return
        old.unlink(missing_ok=True)
        os.close(self._stream)
        self._stream, self._last = stream, _clock()
        self.number += 1

    def _keep_beating(self) -> None:
        while not self._end.wait(self.told["lease_s"] / BEATS):
            self.beat()

    def release(self) -> None:
        """Give the claim up; it vanishes, unless it is another's by now."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.beat()
        with self._lock:
            if not self.lost:
                _file(self.target, self.number).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # others may have claims there
                    self.target.parent.joinpath(".claim").rmdir()
            self.lost = True
            with contextlib.suppress(OSError):
                os.close(self._stream)


class Claims:
    """Takes claims, and watches those of others to see which are stale."""

    def __init__(self, lease_s: float = LEASE_S) -> None:
        """Take the length of the leases that this process asks for."""
        self.lease_s = lease_s
        self._seen: dict[Path, tuple[int, bytes, float]] = {}
        self._beating: set[Path] = set()

    def take(self, target: Path, mark: str = "") -> Claim | None:
        """Return a claim on ``target``, or None while another has it.

        Args:
            target: what is claimed; need not exist.
            mark: how far the work on it has come, in any words; see :attr:`Claim.losses`.
        """
        held = self.holder(target)
        if held is not None and not self._is_stale(target, held):
            return None
        losses = 0
        if held is not None and held.told.get("mark", "") == mark:
            losses = int(held.told.get("losses", 0)) + 1
        told = {
            "owner": uuid.uuid4().hex, "host": socket.gethostname(), "place": _place(),
            "pid": os.getpid(), "born": _started(os.getpid()), "lease_s": self.lease_s,
            "losses": losses, "mark": mark,
        }  # fmt: skip
        number = held.number + 1 if held is not None else 1
        stream = _create(target, number, told)
        if stream is None:
            return None
        self._seen.pop(target, None)
        others = [n for n in _numbers(target) if n != number]
        if others and max(others) > number:  # our listing was an old one
            _file(target, number).unlink(missing_ok=True)
            os.close(stream)
            return None
        for other in others:
            _file(target, other).unlink(missing_ok=True)
        return Claim(target, number, told, stream)

    def holder(self, target: Path) -> Holder | None:
        """Return who has the claim on ``target``, stale or not."""
        for _ in range(3):  # it may be released while we look
            numbers = _numbers(target)
            if not numbers:
                return None
            try:
                raw = _file(target, max(numbers)).read_bytes()
            except OSError:
                continue
            return Holder(max(numbers), raw, _parsed(raw))
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
        return time.monotonic() - since > float(held.told.get("lease_s", self.lease_s))


def is_alive(told: dict[str, Any]) -> bool:
    """Return whether the process that :func:`this_process` described may still be running."""
    return told.get("place") != _place() or _started(told.get("pid", 0)) == told.get("born")


def this_process() -> dict[str, Any]:
    """Return what :func:`is_alive` needs to recognise this process."""
    return {"place": _place(), "pid": os.getpid(), "born": _started(os.getpid())}


def _file(target: Path, number: int) -> Path:
    return target.parent / ".claim" / f"{target.name}.{number}"


def _numbers(target: Path) -> list[int]:
    """Return the numbers of the claim files on ``target``."""
    try:
        names = os.listdir(target.parent / ".claim")
    except OSError:
        return []
    split = (name.rpartition(".") for name in names)
    return [int(n) for name, _, n in split if name == target.name and n.isdigit()]


def _create(target: Path, number: int, told: dict[str, Any]) -> int | None:
    """Make a claim file and return it open, or None where there is one of this number."""
    path = _file(target, number)
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            stream = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        except FileExistsError:
            return None
        except FileNotFoundError:  # the last claim of the folder was just released
            continue
        os.write(stream, _content(told, 0))
        os.fsync(stream)
        return stream


def _content(told: dict[str, Any], beats: int) -> bytes:
    return json.dumps({**told, "beats": f"{beats:012d}"}).encode()  # always of one length


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        told = json.loads(raw)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


@functools.cache
def _place() -> str:
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
