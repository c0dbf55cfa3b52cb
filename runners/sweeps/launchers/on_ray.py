"""Workers as tasks of Ray Core, on this machine or on a cluster with shared folders."""

from __future__ import annotations

import dataclasses
from typing import Any

from runners.sweeps.launchers.base import (
    Launcher,
    Worker,
    check_least,
    missing,
    work,
    worker_environment,
)
from runners.sweeps.queue import Queue


@dataclasses.dataclass(frozen=True)
class RayOptions:
    """Keys of ``launch.ray`` in a sweep file.

    Attributes:
        address: of a cluster, such as ``auto`` or ``ray://host:10001``; empty starts one here,
            with the CPUs that the workers need.
        cpus: per worker.
        gpus: per worker; 0.5 puts two on one GPU. Empty: 1 where this machine has one, else 0.
    """

    address: str = ""
    cpus: int = 1
    gpus: float | None = None

    def __post_init__(self) -> None:
        check_least("launch.ray", self, cpus=1, gpus=0)


class RayLauncher(Launcher):
    """Starts tasks.

    Ray's own retries are off: :func:`~runners.sweeps.launchers.base.supervise` replaces lost
    workers, and their runs are resumed from their checkpoints.
    """

    def __init__(self, queue: Queue, workers: int, options: RayOptions, gpus: int) -> None:
        """Connect to the cluster, or start one.

        Raises:
            UserError: Ray is not installed.
        """
        try:
            import ray
        except ImportError as error:
            raise missing("Ray", "ray") from error
        super().__init__(queue, workers)
        self.options = options
        self.gpus = (1.0 if gpus else 0.0) if options.gpus is None else options.gpus
        self.ray: Any = ray
        ray.init(
            address=options.address or "local",
            num_cpus=None if options.address else workers * options.cpus,  # a cluster has CPUs
            include_dashboard=False,
            log_to_driver=True,
            runtime_env={"env_vars": worker_environment()},
        )

    def start(self, number: int) -> RayWorker:
        """Submit a task."""
        task = self.ray.remote(max_retries=0)(work).options(
            num_cpus=self.options.cpus, num_gpus=self.gpus, name=f"sweep worker {number}"
        )
        return RayWorker(self.ray, task.remote(str(self.queue.folder), self.options.cpus))

    def close(self) -> None:
        """Disconnect from the cluster; one that was started here ends."""
        self.ray.shutdown()


@dataclasses.dataclass
class RayWorker(Worker):
    """A submitted task."""

    ray: Any
    task: Any

    def is_alive(self) -> bool:
        """Return whether it runs or waits."""
        done, _ = self.ray.wait([self.task], timeout=0)
        return not done

    def kill(self) -> None:
        """Kill the task's process."""
        if self.is_alive():
            self.ray.cancel(self.task, force=True)
