"""Workers as jobs of Slurm through submitit, or of its local executor."""

from __future__ import annotations

import dataclasses
from typing import Any

from runners.sweeps.launchers.base import (
    Launcher,
    Worker,
    check_least,
    environment,
    missing,
    work,
    worker_environment,
)
from runners.sweeps.queue import Queue


@dataclasses.dataclass(frozen=True)
class SubmititOptions:
    """Keys of ``launch.submitit`` in a sweep file.

    Attributes:
        cluster: ``slurm``, or ``local`` for processes here; empty: Slurm if it is installed.
        minutes: time limit of a job; its run is resumed from its checkpoint in a new job.
        cpus: per worker.
        gpus: per worker; empty: 1.
        slurm: further parameters of submitit, such as ``{slurm_partition: gpu}``.
    """

    cluster: str = ""
    minutes: int = 24 * 60
    cpus: int = 4
    gpus: int = 1
    slurm: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_least("launch.submitit", self, minutes=1, cpus=1, gpus=0)


class SubmititLauncher(Launcher):
    """Submits jobs, the first ones as one array, with their logs in ``<output>/workers``."""

    def __init__(self, queue: Queue, workers: int, options: SubmititOptions, gpus: int) -> None:
        """Create an executor.

        Raises:
            UserError: submitit is not installed.
        """
        try:
            import submitit
        except ImportError as error:
            raise missing("submitit", "submitit") from error
        super().__init__(queue, workers)
        self.threads = options.cpus
        folder = queue.folder.parent.parent / "workers"
        self.executor: Any = submitit.AutoExecutor(folder, cluster=options.cluster or None)
        is_local = self.executor.cluster in ("local", "debug")
        parameters = {
            "name": "sweep", "timeout_min": options.minutes, "cpus_per_task": options.cpus,
            "gpus_per_node": min(options.gpus, gpus) if is_local else options.gpus, **options.slurm,
        }  # fmt: skip
        self.executor.update_parameters(**parameters)

    def start_all(self) -> list[Worker]:
        """Submit an array of jobs."""
        with environment(worker_environment()), self.executor.batch():
            jobs = [self._submit() for _ in range(self.workers)]
        return [SubmititWorker(job) for job in jobs]

    def start(self, number: int) -> Worker:
        """Submit one more job."""
        with environment(worker_environment()):
            return SubmititWorker(self._submit())

    def _submit(self) -> Any:
        return self.executor.submit(work, str(self.queue.folder), self.threads)


@dataclasses.dataclass
class SubmititWorker(Worker):
    """A submitted job."""

    job: Any

    def is_alive(self) -> bool:
        """Return whether it runs or waits."""
        return not self.job.done()

    def kill(self) -> None:
        """Cancel it."""
        if self.is_alive():
            self.job.cancel()
