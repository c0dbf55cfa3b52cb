"""Workers on this machine: processes, each with its CPU cores and a GPU."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import signal
import sys
from multiprocessing.context import SpawnProcess

from runners.sweeps.launchers.base import Launcher, Worker, check_least, environment, work
from runners.sweeps.queue import Queue
from utils.signals import terminated_like_ctrl_c

log = logging.getLogger("hashing")


@dataclasses.dataclass(frozen=True)
class LocalOptions:
    """Keys of ``launch.local`` in a sweep file.

    Attributes:
        slots_per_gpu: maximum of workers on one GPU; 0 = no limit, GPUs are assigned in turn.
        pin_cpus: pin each worker to separate cores. Use false when several sweeps run on the
            machine, because they would choose the same cores.
    """

    slots_per_gpu: int = 0
    pin_cpus: bool = True

    def __post_init__(self) -> None:
        check_least("launch.local", self, slots_per_gpu=0)


class LocalLauncher(Launcher):
    """Starts processes."""

    def __init__(self, queue: Queue, workers: int, options: LocalOptions, gpus: int) -> None:
        """Assign ``gpus`` GPUs (0 = none) and the cores to the workers."""
        super().__init__(queue, workers)
        self.options = options
        self.gpus = visible_gpus(gpus)
        if self.gpus and options.slots_per_gpu:
            self.workers = min(workers, len(self.gpus) * options.slots_per_gpu)
            if self.workers < workers:
                log.info("%d workers: what the slots of the GPUs hold", self.workers)
        self.cores = shares(available_cores(), self.workers)

    def start(self, number: int) -> LocalWorker:
        """Start a process."""
        cores = self.cores[number]
        threads = {name: str(len(cores)) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        variables = {name: os.environ.get(name, value) for name, value in threads.items()}
        if self.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = self.gpus[number % len(self.gpus)]
        pinned = cores if self.options.pin_cpus and self.workers > 1 else []
        process = multiprocessing.get_context("spawn").Process(
            target=_work, args=(str(self.queue.folder), len(cores), pinned), daemon=False
        )
        with environment(variables):  # libraries read it at import
            process.start()
        return LocalWorker(process)


@dataclasses.dataclass
class LocalWorker(Worker):
    """A started process."""

    process: SpawnProcess

    def is_alive(self) -> bool:
        """Return whether it runs."""
        return self.process.is_alive()

    def stop(self) -> None:
        """Send SIGTERM, which a worker treats like Ctrl-C."""
        self.process.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


def visible_gpus(count: int) -> list[str]:
    """Return the names of ``count`` GPUs for CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(n) for n in range(count)] if visible is None else visible.split(",")
    return [name.strip() for name in names if name.strip()][:count]


def available_cores() -> list[int]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def shares(cores: list[int], workers: int) -> list[list[int]]:
    """Return each worker's cores: distinct if there are enough, else assigned in turn.

    >>> shares([0, 1, 2, 3, 4], 2)
    [[0, 1], [2, 3, 4]]
    >>> shares([0, 1], 3)
    [[0], [1], [0]]
    """
    if workers > len(cores):
        return [[cores[number % len(cores)]] for number in range(workers)]
    bounds = [len(cores) * number // workers for number in range(workers + 1)]
    return [cores[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


def _work(queue: str, threads: int, cores: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent forwards it
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    try:
        with terminated_like_ctrl_c():
            work(queue, threads)
    except KeyboardInterrupt:
        sys.exit(130)
