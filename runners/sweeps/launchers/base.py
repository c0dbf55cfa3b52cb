"""The base of the launchers: start workers, replace those that died, stop all of them.

A launcher starts workers and reports whether they are alive; everything else is in the queue. Each
worker calls :func:`work`, which executes the runs of the queue.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from runners.sweeps.queue import DIED, Queue, run_queue
from utils.errors import UserError
from utils.heartbeat import quiet_for, watchdog

log = logging.getLogger("hashing")
ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 30.0  # for workers to end by themselves


class Worker(ABC):
    """A started worker."""

    @abstractmethod
    def is_alive(self) -> bool:
        """Return whether it works or waits to be started."""

    def stop(self) -> None:  # noqa: B027 - optional
        """Ask it to end; by default, it sees the stop file of the queue at its next step."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once, if it is alive."""


class Launcher(ABC):
    """Starts workers for one queue."""

    def __init__(self, queue: Queue, workers: int) -> None:
        """Keep the queue and the number of workers."""
        self.queue, self.workers = queue, workers

    @abstractmethod
    def start(self, number: int) -> Worker:
        """Start worker ``number`` of ``self.workers``."""

    def start_all(self) -> list[Worker]:
        """Start all workers."""
        return [self.start(number) for number in range(self.workers)]

    def close(self) -> None:  # noqa: B027 - optional
        """Release the resources of the launcher."""


def worker_environment() -> dict[str, str]:
    """Return the environment with which Python on another host finds this code and its cache."""
    variables = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    if "HASHING_CACHE" in os.environ:
        variables["HASHING_CACHE"] = str(Path(os.environ["HASHING_CACHE"]).expanduser().resolve())
    return variables


_LIBRARIES = {"ray": "Ray", "submitit": "submitit"}  # launcher, whose module it is, → its name


def check_library(launcher: str) -> None:
    """Refuse a launcher whose library is not installed; it is not imported.

    Raises:
        UserError: it is missing.
    """
    if launcher in _LIBRARIES and importlib.util.find_spec(launcher) is None:
        raise missing(_LIBRARIES[launcher], launcher)


def check_least(place: str, options: object, **least: float) -> None:
    """Refuse options of a launcher below their least value; None is accepted.

    Raises:
        UserError: naming ``place`` and the option.
    """
    for key, minimum in least.items():
        value = getattr(options, key)
        if value is not None and not value >= minimum:  # NaN is not
            raise UserError(f"{place}.{key}={value} is not accepted; {minimum} or more is needed.")


def missing(package: str, launcher: str) -> UserError:
    """Return the error for a launcher whose library is not installed."""
    return UserError(
        f"--launcher {launcher} needs {package}, which is not installed; run "
        "pip install -r requirements-launchers.txt, or give --launcher local."
    )


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables during the block, for the processes that it starts."""
    previous = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def supervise(launcher: Launcher, ended: Callable[[str], None]) -> None:
    """Start workers and replace dead ones until all runs have an outcome or the queue is stopped.

    Ctrl-C asks the workers to end, so their runs can be resumed; a second one kills them. ``ended``
    is called with the name of each run that ends.

    Raises:
        KeyboardInterrupt: after Ctrl-C, when all workers have ended.
    """
    queue = launcher.queue
    workers: list[Worker] = []
    try:
        workers += launcher.start_all()
        _watch(launcher, workers, ended)
        _wait(workers, 5.0)
    except KeyboardInterrupt:
        log.warning("stopping; interrupt again to stop at once")
        queue.stop("interrupted")
        for worker in workers:
            worker.stop()
        with contextlib.suppress(KeyboardInterrupt):
            _wait(workers, PATIENCE_S)
        raise
    finally:
        for worker in workers:
            worker.kill()
        launcher.close()


def _watch(launcher: Launcher, workers: list[Worker], ended: Callable[[str], None]) -> None:
    queue, reported, deaths = launcher.queue, set[str](), 0
    remaining, marks = set(queue.names), set[str]()
    limit = launcher.workers * (queue.rules.retries + 2) + 3
    while remaining and queue.stop_reason() is None:
        for name in sorted(queue.ended() - reported):
            reported.add(name)
            remaining.discard(name)
            ended(name)
            deaths = 0
        if not remaining:
            return
        for number, worker in enumerate(workers):
            if worker.is_alive():
                continue
            deaths += 1
            new = {queue.run_folder(name).mark for name in remaining} - marks
            if new:  # a run has progressed
                marks, deaths = marks | new, 1
            if deaths > limit:
                queue.stop(DIED)
                for name in sorted(remaining - queue.ended()):
                    queue.end(name, "failed", f"{DIED}; sweep again to go on")
                    ended(name)
                return
            log.warning("worker %d died; another one takes its place", number)
            workers[number] = launcher.start(number)
        time.sleep(0.05)


def _wait(workers: list[Worker], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while any(worker.is_alive() for worker in workers) and time.monotonic() < limit:
        time.sleep(0.05)


def work(queue_folder: str, threads: int = 0) -> None:
    """Execute the runs of a queue in this process; every worker of every launcher calls this.

    ``threads`` are those of PyTorch on the CPU; 0 = its default.
    """
    from utils.logs import log_to_stderr

    log_to_stderr(logging.WARNING)
    queue = Queue(Path(queue_folder))
    os.chdir(queue.content["cwd"])  # paths in settings are relative to it
    if threads:
        import torch

        torch.set_num_threads(threads)
    with _stopped_by(queue):
        run_queue(queue)


@contextlib.contextmanager
def _stopped_by(queue: Queue) -> Iterator[None]:
    """End this process when the queue is stopped, the parent is gone, or no heartbeat comes."""
    must_end, is_over = threading.Event(), threading.Event()
    parent, hang = os.getppid(), queue.rules.hang_after_s

    def watch() -> None:
        while not is_over.wait(0.5):
            if queue.stop_reason() is not None or os.getppid() != parent:
                must_end.set()
            if hang and quiet_for() > hang:
                log.error("no sign of life for %.0f s; this worker ends itself", hang)
                os.kill(os.getpid(), signal.SIGKILL)

    def guard() -> None:
        if must_end.is_set():
            raise KeyboardInterrupt

    threading.Thread(target=watch, daemon=True, name="supervision").start()
    try:
        with watchdog(guard):
            yield
    finally:
        is_over.set()
