"""The leases of real files under a scheduler: workers stop at any step, clocks are virtual.

A :class:`World` runs the functions of a leases module for some workers, each operation in a thread
that waits before every step (a call of the file system, a look at a clock) until it is told to go
on. So a test decides where a worker is stopped, killed, or overtaken. At the beginning and at the
end of every write it is checked that the writer's lease

- is not older than another: none was given by a ``take`` that began when the writer had its own;
- is that of the write before, or has never written: writes of two leases do not alternate.

``python -m tests.common.storage.lease_model FILE`` searches another version of the module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import importlib.util
import itertools
import os
import pathlib
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

TERM = 10.0


class TwoOwnersError(AssertionError):
    """A worker wrote whose lease is another's."""


class _KilledError(BaseException):
    """Ends the thread of a killed worker."""


@dataclasses.dataclass
class Worker:
    """A process of the model."""

    number: int
    leases: Any = None
    lease: Any = None
    grant: int = 0
    ahead: float = 0.0  # of its clocks
    is_dead: bool = False
    thread: threading.Thread | None = None
    streams: set[int] = dataclasses.field(default_factory=set)
    go: threading.Semaphore = dataclasses.field(default_factory=lambda: threading.Semaphore(0))
    waits: threading.Semaphore = dataclasses.field(default_factory=lambda: threading.Semaphore(0))


_current = threading.local()


def _step() -> None:
    """Wait until this worker may do its next step."""
    worker: Worker | None = getattr(_current, "worker", None)
    if worker is None:
        return
    if worker.thread is not None:
        worker.waits.release()
        worker.go.acquire()
    if worker.is_dead:
        raise _KilledError


class _SteppedPath(pathlib.PosixPath):
    def read_bytes(self) -> bytes:
        _step()
        return super().read_bytes()

    def unlink(self, missing_ok: bool = False) -> None:
        _step()
        super().unlink(missing_ok)

    def exists(self, **more: Any) -> bool:
        _step()
        return super().exists(**more)

    def rmdir(self) -> None:
        _step()
        super().rmdir()


class _SteppedOs:
    """The module ``os`` as a worker sees it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def getpid(self) -> int:
        return 1000 + _current.worker.number

    def fsync(self, stream: int) -> None:
        """Do nothing: the model has no power cuts."""

    def listdir(self, path: Path) -> list[str]:
        _step()
        return os.listdir(path)

    def open(self, *args: Any) -> int:
        _step()
        stream = os.open(*args)
        _current.worker.streams.add(stream)
        return stream

    def close(self, stream: int) -> None:
        _step()
        _current.worker.streams.discard(stream)
        os.close(stream)

    def write(self, stream: int, data: bytes) -> int:
        _step()
        return os.write(stream, data)

    def pwrite(self, stream: int, data: bytes, place: int) -> int:
        _step()
        return os.pwrite(stream, data, place)


def load(path: Path, edit: Callable[[str], str] = lambda text: text) -> ModuleType:
    """Return a private copy of a leases module, made of its edited text."""
    spec = importlib.util.spec_from_loader(f"leases_under_test_{id(edit)}", None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    try:
        exec(compile(edit(path.read_text(encoding="utf-8")), str(path), "exec"), module.__dict__)
    finally:
        del sys.modules[spec.name]
    return module


class World:
    """Workers, a target in a temporary folder, and the time."""

    def __init__(self, module: ModuleType, workers: int = 3, one_host: bool = False) -> None:
        """Put ``workers`` on a host each, or all on one, where they see who was killed."""
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.target = _SteppedPath(self.folder / "run")
        self.module, self.time = module, 0.0
        self.grants = self.newest = 0  # leases given; of those, the last that a `take` began after
        self.writers: list[int] = []  # their leases
        self.failure: BaseException | None = None
        self.workers = [Worker(number) for number in range(workers)]

        def place() -> str:
            return "host" if one_host else f"host {_current.worker.number}"

        def started(pid: int) -> str | None:
            worker = self.workers[pid - 1000]
            return None if worker.is_dead else "once"

        def flock(stream: int, how: int) -> None:
            _step()
            fcntl.flock(stream, how)

        more = {
            "os": _SteppedOs(), "_place": place, "_host_identity": place, "_started": started,
            "_clock": self._clock, "_observers_clock": self._clock,
            "fcntl": SimpleNamespace(**{**vars(fcntl), "flock": flock}),
            "time": SimpleNamespace(monotonic=self._clock),
        }  # fmt: skip
        vars(module).update(more)
        for worker in self.workers:
            worker.leases = module.Leases(TERM)

    def _clock(self) -> float:
        _step()
        return self.time + _current.worker.ahead

    def close(self) -> None:
        """End all workers and remove the folder."""
        for worker in self.workers:
            self.kill(worker)
        shutil.rmtree(self.folder, ignore_errors=True)

    def choices(self, worker: Worker) -> list[Callable[[Worker], None]]:
        """Return the operations that an idle worker may begin."""
        if worker.is_dead:
            return []
        return [self.take] if worker.lease is None else [self.write, self.release, self.beat]

    def do(self, worker: Worker, operation: Callable[[Worker], None]) -> None:
        """Do a whole operation without a stop."""
        _current.worker = worker
        try:
            operation(worker)
        finally:
            _current.worker = None

    def begin(self, worker: Worker, operation: Callable[[Worker], None]) -> None:
        """Begin an operation, and stop before its first step."""
        assert worker.thread is None

        def work() -> None:
            _current.worker = worker
            try:
                _step()
                operation(worker)
            except _KilledError:
                pass
            except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
                self.failure = error
            worker.thread = None
            worker.waits.release()

        worker.thread = threading.Thread(target=work, daemon=True)
        worker.thread.start()
        worker.waits.acquire()

    def advance(self, worker: Worker, steps: int) -> None:
        """Let a worker do some steps of its operation, or what is left of it."""
        for _ in range(steps):
            if worker.thread is None:
                break
            worker.go.release()
            worker.waits.acquire()
        if self.failure is not None:
            raise self.failure

    def kill(self, worker: Worker) -> None:
        """End a worker, in the middle of its operation or not."""
        worker.is_dead = True
        while worker.thread is not None:
            worker.go.release()
            worker.waits.acquire()
        for stream in worker.streams:
            os.close(stream)
        worker.streams.clear()

    def replace(self, number: int) -> None:
        """Start a worker anew."""
        self.workers[number] = Worker(number, self.module.Leases(TERM))

    def take(self, worker: Worker) -> None:
        """Try to get the lease."""
        before = self.grants
        worker.lease = worker.leases.take(self.target, "")
        if worker.lease is not None:
            self.newest = max(self.newest, before)
            self.grants += 1
            worker.grant = self.grants

    def beat(self, worker: Worker) -> None:
        """Do what the thread of a lease does from time to time."""
        worker.lease.beat()

    def write(self, worker: Worker) -> None:
        """Write into the target, if that is not refused."""
        try:
            with self._writing(worker.lease):
                self._written(worker)
                _step()
                self._written(worker)
        except self.module.LeaseLostError:
            self.release(worker)

    def release(self, worker: Worker) -> None:
        """Give the lease up."""
        lease, worker.lease = worker.lease, None
        lease.release()

    @contextlib.contextmanager
    def _writing(self, lease: Any) -> Iterator[None]:
        if hasattr(lease, "writing"):
            with lease.writing():
                yield
        else:  # former versions
            lease.check()
            yield

    def _written(self, worker: Worker) -> None:
        is_back = worker.grant in self.writers[:-1] and worker.grant != self.writers[-1]
        if worker.grant <= self.newest or is_back:
            raise TwoOwnersError(
                f"worker {worker.number} wrote by lease {worker.grant} of {self.grants}, after "
                f"those of {self.writers}"
            )
        self.writers.append(worker.grant)


def search(module: ModuleType, depth: int, workers: int = 3, ticks: int = 1) -> list[str] | None:
    """Return a sequence of whole operations with two owners, or None: there is none.

    All sequences of up to ``depth`` operations, of which ``ticks`` terms that pass, are tried,
    workers in the order in which they first act.
    """
    todo: list[list[int]] = [[]]
    while todo:
        prefix = todo.pop()
        found, counts = replay(module, prefix, depth, workers, ticks)
        if found is not None:
            return found
        for place in range(len(prefix), len(counts)):
            done = prefix + [0] * (place - len(prefix))
            todo += [[*done, choice] for choice in range(1, counts[place])]
    return None


def replay(
    module: ModuleType, choices: Sequence[int], length: int, workers: int, ticks: int
) -> tuple[list[str] | None, list[int]]:
    """Do ``length`` operations by the numbers of ``choices``, then by 0.

    Return their names if there were two owners, and the number of possible choices at each.
    """
    world, names, counts = World(module, workers), [], []
    acted = passed = 0
    try:
        for choice, _ in itertools.zip_longest(choices, range(length), fillvalue=0):
            possible: list[tuple[str, Callable[[], None]]] = []
            for worker in world.workers[: acted + 1]:
                for operation in world.choices(worker):
                    if operation != world.beat:
                        name = f"{'ABCDEF'[worker.number]} {operation.__name__}"
                        possible.append((name, functools.partial(world.do, worker, operation)))
            if passed < ticks and acted:
                possible.append(("a term passes", lambda: None))
            counts.append(len(possible))
            name, do = possible[choice]
            names.append(name)
            if name == "a term passes":
                passed += 1
                world.time += TERM * 1.1
            acted = max(acted, min(workers - 1, "ABCDEF".find(name[0]) + 1))
            do()
    except TwoOwnersError:
        return names, counts
    finally:
        world.close()
    return None, counts


if __name__ == "__main__":
    depth = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    trace = search(load(Path(sys.argv[1])), depth)
    print(f"no two owners within {depth} operations" if trace is None else ", ".join(trace))
