"""Leases: one worker at a time on a target, whatever becomes of the worker, on any number of hosts.

The leases on ``folder/name`` are the files ``folder/.claim/name/<n>``; the one with the highest
number counts. Making a file of a name that must not exist yet is atomic on local and network file
systems, so exactly one process ever gets number n + 1, and it may try only when number n

- was given up (its owner wrote ``free`` into it), or
- is of an owner that lived on this host (same boot, same namespaces) and is gone, or
- has not changed for ``lease_s`` seconds of the *observer's* own clock. The owner writes a new
  count into it six times in that term. No two clocks are ever compared.

No number is used twice: the highest one is never removed, not even when it is given up, and it
alone decides. An owner writes only through the file that it made, and is the owner as long as that
file, found again by its name, has its token and no higher number is there. Clocks decide when
another may try, never who owns: a worker that was stopped (a suspended laptop, SIGSTOP), or whose
clock jumped, finds a higher number (:class:`LeaseLostError`), or takes the next one and goes on.

What an owner writes into its target goes through :meth:`Lease.writing` (by
:func:`utils.fence.fenced`): its file is locked (flock) while a write is looked at and done, and who
wants to take over from a silent owner needs that lock to make number n + 1. So a write is whole
before a successor begins, or refused. Where a file system has no locks, or its server forgets
those of a suspended client (NFS), a worker stopped within the milliseconds between look and rename
is not refused. With NFS keep ``lease_s`` above its attribute cache (60 s).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.storage import lease_records as records
from utils.errors import UserError
from utils.fence import fence

_place, _started = records.place, records.started
_clock, _observers_clock = records.clock, records.observers_clock
LEASE_S = 90.0
BEATS = 6  # per term


class LeaseLostError(UserError):
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
    def is_free(self) -> bool:
        """Whether the owner has given it up."""
        return self.record.get("state") == "free"

    @property
    def is_here(self) -> bool:
        """Whether the owner lives, or lived, on this host."""
        return self.record.get("place") == _place()

    @property
    def is_gone(self) -> bool:
        """Whether the owner is known to have ended."""
        return not is_alive(self.record)

    def __str__(self) -> str:
        return f"process {self.record.get('pid', '?')} on {self.record.get('host', 'a host')}"


class Lease:
    """A lease that this process holds; as a context manager it beats until the block is left.

    Within the block, what :func:`utils.fence.fenced` guards below the target is written only while
    the lease is ours. A process that is forked meanwhile has no part in it.
    """

    def __init__(
        self, target: Path, number: int, record: dict[str, Any], stream: int, since: float
    ) -> None:
        """Take a lease file that :class:`Leases` has made; ``since``: our clock before that."""
        self.target, self.number, self.record = target, number, record
        self.lost = False
        self._stream, self._last, self._beats = stream, since, 0
        self._lock = threading.RLock()
        self._depth = 0  # of writing
        self._exits = contextlib.ExitStack()

    @property
    def losses(self) -> int:
        """How many owners in a row were lost before this one without having got anywhere."""
        return int(self.record["losses"])

    def __enter__(self) -> Lease:
        end = threading.Event()
        thread = threading.Thread(target=self._keep_beating, args=(end,), daemon=True, name="lease")
        thread.start()
        self._exits.callback(thread.join)
        self._exits.callback(end.set)
        self._exits.enter_context(fence(self.target, self.writing))
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def check(self) -> None:
        """Make sure that the lease is still ours.

        Raises:
            LeaseLostError: it is not.
        """
        self.beat()
        self._refuse_if_lost()

    def _refuse_if_lost(self) -> None:
        if self.lost:
            raise LeaseLostError(
                f"'{self.target}' has been taken over by another worker, which goes on with it; "
                "this one was without a sign of life for too long."
            )

    def check_often(self) -> None:
        """Check where that costs a look at the clock only, unless we were stopped for long.

        Raises:
            LeaseLostError: the lease is another's.
        """
        if self.lost or self._was_silent():
            self.check()

    def beat(self) -> None:
        """Look whether another took over, and write a new count; after a silence, a new number."""
        if self._is_forked():
            return
        with self._lock, contextlib.suppress(OSError):  # one that fails lengthens the silence
            if self.lost or self._depth:
                return
            if self._was_silent():
                self._renew()
                return
            now = _clock()
            self.lost = not self._is_ours()
            if not self.lost:
                self._beats += 1
                os.pwrite(self._stream, records.content(self.record, self._beats), 0)
                os.fsync(self._stream)
                self._last = now

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Write into the target in this block: no other worker can take over before its end.

        Keep it short; it may be nested.

        Raises:
            LeaseLostError: another worker has taken over; nothing may be written.
        """
        if self._is_forked():
            yield
            return
        with self._lock:
            if not self._depth:
                self._begin_writing()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if not self._depth:
                    _unlock(self._stream)

    def _begin_writing(self) -> None:
        self.check_often()
        while not _locks(self._stream, fcntl.LOCK_EX):  # another is about to take over: be faster
            self._renew()
            if self.lost:
                break
        try:
            self.lost = self.lost or not self._is_ours()
            self._refuse_if_lost()
        except BaseException:
            _unlock(self._stream)
            raise

    def _is_ours(self) -> bool:
        numbers = _numbers(self.target)
        return max(numbers, default=0) == self.number and self._made(self.number)

    def _made(self, number: int) -> bool:
        """Return whether the file of a number is there and is ours."""
        latest = _read(self.target, number)
        return latest is not None and latest.record.get("owner") == self.record["owner"]

    def _renew(self) -> None:
        """Take the next number, unless another has one: what was seen of this one is then past."""
        now, number = _clock(), self.number + 1
        stream = _create(self.target, number, self.record)
        if stream is None:
            self.lost = True
            return
        highest = max(_numbers(self.target), default=0)
        if highest != number or not self._made(self.number):
            self.lost = True
            _give_up(stream, self.record)
            return
        os.close(self._stream)
        self._stream, self._last, self.number = stream, now, number
        _remove_below(self.target, number)

    def _was_silent(self) -> bool:
        """Return whether others may think so; a clock that was set back tells nothing."""
        passed = 0.0 if self._is_forked() else _clock() - self._last
        return not 0 <= passed <= self.record["lease_s"] / 2

    def _is_forked(self) -> bool:
        return os.getpid() != self.record["pid"]

    def _keep_beating(self, end: threading.Event) -> None:
        while not end.wait(self.record["lease_s"] / BEATS):
            self.beat()

    def release(self) -> None:
        """Give the lease up; its file stays, so that its number is never given again."""
        if self._is_forked():
            return
        self._exits.close()
        with self._lock:
            if self._stream >= 0:
                _give_up(self._stream, self.record)
            self._stream, self.lost = -1, True


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
        now = _observers_clock()  # before we look: we may be stopped meanwhile
        latest = _latest(target)
        if latest is None or latest.is_free:
            return self._make(target, latest, mark, 0)
        losses = 0
        if latest.record.get("mark", "") == mark:
            before = latest.record.get("losses", 0)
            losses = 1 + (before if isinstance(before, int) else 0)
        if latest.is_gone:
            return self._make(target, latest, mark, losses)
        if not self._is_silent(target, latest, now):
            return None
        with _kept_from_writing(target, latest.number) as is_kept:
            return self._make(target, latest, mark, losses) if is_kept else None

    def _make(self, target: Path, latest: Holder | None, mark: str, losses: int) -> Lease | None:
        record = {
            "owner": uuid.uuid4().hex, "host": socket.gethostname(), **this_process(),
            "lease_s": self.lease_s, "losses": losses, "mark": mark,
        }  # fmt: skip
        now, number = _clock(), latest.number + 1 if latest is not None else 1
        stream = _create(target, number, record)
        if stream is None:
            return None
        self._seen.pop(target, None)
        if max(_numbers(target), default=0) != number:  # our listing was an old one
            _give_up(stream, record)
            return None
        _remove_below(target, number)
        return Lease(target, number, record, stream, now)

    def holder(self, target: Path) -> Holder | None:
        """Return who has the lease on ``target``, stale or not."""
        latest = _latest(target)
        return None if latest is None or latest.is_free else latest

    def beats(self, target: Path) -> bool:
        """Return whether the owner of ``target`` was seen to beat since we began to watch it."""
        return target in self._beating

    def _is_silent(self, target: Path, latest: Holder, now: float) -> bool:
        """Return whether nothing changed for a term until ``now``, when it had yet to be read."""
        number, raw, since = self._seen.get(target, (0, b"", 0.0))
        if (number, raw) != (latest.number, latest.raw) or now < since:
            if number and now >= since:
                self._beating.add(target)
            self._seen[target] = (latest.number, latest.raw, _observers_clock())
            return False
        return now - since > records.term(latest.record, self.lease_s)


def this_process() -> dict[str, Any]:
    """Return what :func:`is_alive` needs to recognise this process."""
    return {"place": _place(), "pid": os.getpid(), "born": _started(os.getpid())}


def is_alive(record: dict[str, Any]) -> bool:
    """Return whether the process that :func:`this_process` described may still be running."""
    if record.get("place") != _place():
        return True
    return _started(record.get("pid")) in (record.get("born"), records.HIDDEN)


def _file(target: Path, number: int) -> Path:
    return target.parent / ".claim" / target.name / str(number)


def _numbers(target: Path) -> list[int]:
    """Return the numbers of the lease files on ``target``."""
    try:
        names = os.listdir(_file(target, 0).parent)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [int(name) for name in names if name.isdecimal()]


def _read(target: Path, number: int) -> Holder | None:
    try:
        raw = _file(target, number).read_bytes()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return None
        raise
    return Holder(number, raw, records.parse(raw))


def _latest(target: Path) -> Holder | None:
    """Return the lease file with the highest number, given up or not."""
    number = 0
    for _ in range(3):
        number = max(_numbers(target), default=0)
        latest = _read(target, number) if number else None
        if latest is not None or not number:
            return latest  # else there is a higher one by now
    return Holder(number, b"", {})  # a network file system shows an old listing: watch it


def _create(target: Path, number: int, record: dict[str, Any]) -> int | None:
    """Make a lease file and return it open, or None where there is one of this number."""
    path = _file(target, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        stream = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
    except FileExistsError:
        return None
    try:
        os.write(stream, records.content(record, 0))
        os.fsync(stream)
    except OSError:
        os.close(stream)
        raise
    return stream


def _give_up(stream: int, record: dict[str, Any]) -> None:
    """Write ``free`` into a lease file that we made, and close it."""
    with contextlib.suppress(OSError):
        os.pwrite(stream, records.content(record, 0, "free"), 0)
        os.fsync(stream)
    os.close(stream)


def _remove_below(target: Path, number: int) -> None:
    """Remove the files that ``number``, which is there, has made meaningless."""
    for lower in sorted(n for n in _numbers(target) if n < number):
        with contextlib.suppress(OSError):
            _file(target, lower).unlink()


@contextlib.contextmanager
def _kept_from_writing(target: Path, number: int) -> Iterator[bool]:
    """Keep the owner of a lease from writing in the block; False: it is writing, so it lives."""
    try:
        stream = os.open(_file(target, number), os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _locks(stream, fcntl.LOCK_SH)
    finally:
        os.close(stream)


def _locks(stream: int, how: int) -> bool:
    """Return whether a file could be locked at once; also true where there are no locks."""
    try:
        fcntl.flock(stream, how | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, BlockingIOError)
    return True


def _unlock(stream: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.flock(stream, fcntl.LOCK_UN)
