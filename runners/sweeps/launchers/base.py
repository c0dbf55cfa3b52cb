"""What every launcher does: start workers, start those anew that died, stop them all.

A launcher starts workers and says whether they live; nothing else is known of them here. Each
worker calls :func:`work`, which drains the session.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from runners.sweeps.queue import DIED, Session, drain
from utils.errors import UserError
from utils.heartbeat import quiet_for, watchdog

log = logging.getLogger("hashing")
ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 30.0  # for workers to end when asked


class Worker(ABC):
    """A worker that was started."""

    @abstractmethod
    def is_alive(self) -> bool:
        """Return whether it is at work, or waits to be."""

    @abstractmethod
    def stop(self) -> None:
        """Ask it to end, in addition to the session's word."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once; nothing happens if it has ended."""


class Launcher(ABC):
    """Starts workers for one session."""

    session: Session
    workers: int

    @abstractmethod
    def start(self, number: int) -> Worker:
        """Start worker ``number`` of ``self.workers``."""

    def start_all(self) -> list[Worker]:
        """Start all workers."""
        return [self.start(number) for number in range(self.workers)]

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Give back what the launcher holds."""


def worker_environment() -> dict[str, str]:
    """Return the variables with which a Python on another host finds this code and its cache."""
    variables = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    if "HASHING_CACHE" in os.environ:
        variables["HASHING_CACHE"] = str(Path(os.environ["HASHING_CACHE"]).expanduser().resolve())
    return variables


def missing(package: str, launcher: str) -> UserError:
    """Return the error for a launcher whose library is not installed."""
    return UserError(
        f"--launcher {launcher} needs {package}, which is not installed; run "
        "pip install -r requirements-launchers.txt, or give --launcher local."
    )


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables while the block runs, for what it starts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def supervise(launcher: Launcher, ended: Callable[[str], None]) -> None:
    """Keep the workers going until all runs of the session have an outcome, or it is stopped.

    Ctrl-C asks the workers to end, which leaves their runs resumable; a second one kills them.

    Args:
        launcher: of the session.
        ended: called with the name of each run that ends.

    Raises:
        KeyboardInterrupt: after Ctrl-C, when all workers have ended.
    """
    session = launcher.session
    workers: list[Worker] = []
    try:
        workers += launcher.start_all()
        _watch(launcher, workers, ended)
        _wait(workers, 5.0)
    except KeyboardInterrupt:
        log.warning("stopping; interrupt again to stop at once")
        session.stop("interrupted")
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
    session, told, deaths = launcher.session, set[str](), 0
    left, marks = set(session.names), set[str]()
    limit = launcher.workers * (session.rules.retries + 2) + 3
    while left and session.stopped() is None:
        for name in sorted(session.ended() - told):
            told.add(name)
            left.discard(name)
            ended(name)
            deaths = 0
        if not left:
            return
        for number, worker in enumerate(workers):
            if worker.is_alive():
                continue
            deaths += 1
            new = {session.run_folder(name).mark for name in left} - marks
            if new:  # something got on
                marks, deaths = marks | new, 1
            if deaths > limit:
                _give_up(session, left, ended)
                return
            log.warning("worker %d died; another one takes its place", number)
            workers[number] = launcher.start(number)
        time.sleep(0.05)


def _give_up(session: Session, left: set[str], ended: Callable[[str], None]) -> None:
    session.stop(DIED)
    for name in sorted(left - session.ended()):
        session.end(name, "failed", f"{DIED}; sweep again to go on")
        ended(name)


def _wait(workers: list[Worker], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while any(worker.is_alive() for worker in workers) and time.monotonic() < limit:
        time.sleep(0.05)


def work(session_folder: str, threads: int = 0) -> None:
    """Drain a session, in a process of its own: what every worker of every launcher does.

    Args:
        session_folder: of the session.
        threads: for PyTorch on the CPU; 0 = its own choice.
    """
    from utils.logs import log_to_stderr

    log_to_stderr(logging.WARNING)
    session = Session(Path(session_folder))
    os.chdir(session.content["cwd"])  # paths in settings are relative to it
    if threads:
        import torch

        torch.set_num_threads(threads)
    with _supervised(session):
        drain(session)


@contextlib.contextmanager
def _supervised(session: Session) -> Iterator[None]:
    """Watch over this process: end it when it is told to stop, orphaned, or stuck."""
    ending, over = threading.Event(), threading.Event()
    parent, hang = os.getppid(), session.rules.hang_after_s

    def watch() -> None:
        while not over.wait(0.5):
            if session.stopped() is not None or os.getppid() != parent:
                ending.set()
            if hang and quiet_for() > hang:
                log.error("no sign of life for %.0f s; this worker ends itself", hang)
                os.kill(os.getpid(), signal.SIGKILL)

    def guard() -> None:
        if ending.is_set():
            raise KeyboardInterrupt

    threading.Thread(target=watch, daemon=True, name="supervision").start()
    try:
        with watchdog(guard):
            yield
    finally:
        over.set()
