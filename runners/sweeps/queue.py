"""The queue of a sweep: which runs it has, which worker takes which run, how each run ended.

The state of a run is in its own folder (``status.json``) and in its lease
(:mod:`common.storage.leases`). A run that is done or leased is skipped, a run with a stale lease is
taken over and resumed from its checkpoint, and a failed run is retried up to ``retries`` times. So
any number of workers can share the runs, of one sweep or of several, on one host or on many that
share the folder.

A :class:`Queue` belongs to one call of ``sweep``: a folder ``<output>/.sweep/<id>`` with its runs
(``runs.json``), one small file per run that has ended (``outcomes/``), and, to stop early, a file
``stop`` with the reason. It is removed at the end; runs do not depend on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.config.layers import Layer
from common.config.run_config import RunConfig, compose_layers
from common.storage.leases import Lease, LeaseLostError, Leases, is_alive, this_process
from common.storage.run_folder import RunFolder
from utils.errors import UserError
from utils.faults import described, mendable
from utils.files import saying_why, write_json, write_text

log = logging.getLogger("hashing")
DIED = "a worker process died (killed, or out of memory)"


MOST = 10**9  # retries, or seconds


@dataclasses.dataclass(frozen=True)
class Rules:
    """How workers treat runs.

    Attributes:
        retries: of a run that failed, or whose worker was lost without a new checkpoint.
        lease_s: seconds without a renewal after which a worker of another host counts as lost.
        hang_after_s: seconds without a heartbeat after which a worker ends itself, so that another
            one resumes the run; 0 = never.
        accept_changed: whether runs are resumed with another encoder or other data than before.
    """

    retries: int = 1
    lease_s: float = 90.0
    hang_after_s: float = 3600.0
    accept_changed: bool = False

    def __post_init__(self) -> None:
        for name, minimum in (("retries", 0), ("lease_s", 0.1), ("hang_after_s", 0)):
            if not minimum <= getattr(self, name) <= MOST:  # NaN is neither
                raise UserError(
                    f"{name}={getattr(self, name)} is not accepted; {minimum} to {MOST:,} is "
                    "needed."
                )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one run of a sweep ended: ``done``, ``skipped`` (done before) or ``failed``."""

    config: RunConfig
    state: str
    reason: str = ""


def folder_of(config: RunConfig) -> RunFolder:
    """Return the run folder of a configuration."""
    return RunFolder(Path(config.output) / config.run_name)


def is_final_failure(status: dict[str, Any], retries: int) -> bool:
    """Return whether a failed run is not retried: too many failures, or a permanent reason."""
    return status.get("state") == "failed" and (
        bool(status.get("final")) or status.get("failures", 0) > retries
    )


class Queue:
    """The runs of one call of ``sweep``, in a folder that its workers share."""

    def __init__(self, folder: Path) -> None:
        """Open a queue; ``runs.json`` is read at first use."""
        self.folder = folder

    @classmethod
    def create(cls, output: Path, configs: Sequence[RunConfig], rules: Rules) -> Queue:
        """Create the queue of a sweep with output folder ``output``."""
        _remove_abandoned(output / ".sweep")
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
        queue = cls(output.resolve() / ".sweep" / name)
        with saying_why(queue.folder, "create the sweep's folder"):
            (queue.folder / "outcomes").mkdir(parents=True)
        content = {
            "owner": this_process(), "cwd": os.getcwd(), "rules": dataclasses.asdict(rules),
            "runs": {config.run_name: dict(config.resolved) for config in configs},
        }  # fmt: skip
        write_json(queue.folder / "runs.json", content)
        return queue

    @functools.cached_property
    def content(self) -> dict[str, Any]:
        """Content of ``runs.json``: ``owner``, ``cwd``, ``rules``, ``runs`` by name."""
        return json.loads((self.folder / "runs.json").read_text(encoding="utf-8"))

    @property
    def names(self) -> list[str]:
        """The names of the runs, in the order of their execution."""
        return list(self.content["runs"])

    @property
    def rules(self) -> Rules:
        """How its workers treat runs."""
        return Rules(**self.content["rules"])

    def run_folder(self, name: str) -> RunFolder:
        """Return the folder of a run."""
        return RunFolder(Path(self.content["runs"][name]["output"]) / name)

    def ended(self) -> set[str]:
        """Return the names of the runs that have an outcome."""
        names = os.listdir(self.folder / "outcomes")
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def end(self, name: str, state: str, reason: str = "") -> None:
        """Write the outcome of a run."""
        content = {"state": state, "reason": reason}
        write_json(self.folder / "outcomes" / f"{name}.json", content)

    def outcome(self, name: str) -> tuple[str, str]:
        """Return state and reason of a run that has ended."""
        file = self.folder / "outcomes" / f"{name}.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        return content["state"], content["reason"]

    def stop(self, reason: str = "") -> None:
        """Ask all workers to end; the first reason is kept."""
        if self.stop_reason() is None:
            write_text(self.folder / "stop", reason)

    def stop_reason(self) -> str | None:
        """Return why the workers must end, or None."""
        try:
            return (self.folder / "stop").read_text(encoding="utf-8")
        except OSError:
            return None if self.folder.is_dir() else "the sweep has ended"

    def remove(self) -> None:
        """Remove the folder of the queue."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()


def _remove_abandoned(queues: Path) -> None:
    """Remove queues of dead processes of this host."""
    for folder in queues.glob("*"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            if not is_alive(json.loads((folder / "runs.json").read_text())["owner"]):
                shutil.rmtree(folder, ignore_errors=True)


def run_queue(
    queue: Queue, ended: Callable[[str], None] = lambda name: None,
    configs: Sequence[RunConfig] = (),
) -> None:  # fmt: skip
    """Execute runs until all have an outcome or the queue is stopped.

    ``ended`` is called with the name of each run that ended in this worker; ``configs`` are the
    configurations that this process has already composed.
    """
    composed = {config.run_name: config for config in configs}
    leases = Leases(queue.rules.lease_s)
    remaining, wait = queue.names, 0.02
    while remaining and queue.stop_reason() is None:
        progress = False
        for name in remaining:
            if queue.stop_reason() is not None:
                return
            if _try_run(queue, name, leases, composed.get(name)):
                ended(name)
                progress, wait = True, 0.02
        done = queue.ended()
        remaining = [name for name in remaining if name not in done]
        if remaining and not progress:  # other workers have the rest: wait, in case one is lost
            time.sleep(wait)
            wait = min(wait * 1.5, 1.0)


def _try_run(queue: Queue, name: str, leases: Leases, config: RunConfig | None) -> bool:
    """Execute a run that no other worker has; return whether this worker wrote its outcome."""
    folder = queue.run_folder(name)
    if (queue.folder / "outcomes" / f"{name}.json").exists():
        return False
    if folder.is_done:  # by another sweep, or its worker was killed before writing the outcome
        queue.end(name, "done")
        return True
    lease = leases.take(folder.path, folder.mark)
    if lease is None:
        return False
    try:
        with lease:
            if name in queue.ended():  # in the meantime
                return False
            return _is_given_up(queue, name, lease) or _execute(queue, name, config, lease)
    except LeaseLostError:
        log.warning("%s: another worker goes on with it", name)
        return False


def _is_given_up(queue: Queue, name: str, lease: Lease) -> bool:
    """Return whether a run is not tried again; its outcome is written then."""
    retries, status = queue.rules.retries, queue.run_folder(name).status()
    if lease.losses > retries:
        reason = f"{DIED} {lease.losses} times at it; sweep again to go on"
    elif is_final_failure(status, retries):
        reason = status.get("error", "")
    else:
        return False
    with lease.writing():
        queue.end(name, "failed", reason)
    return True


def _execute(queue: Queue, name: str, config: RunConfig | None, lease: Lease) -> bool:
    """Execute one configuration; an error is its outcome and does not end the sweep."""
    from runners.base import run_config

    folder = queue.run_folder(name)
    try:
        resolved = queue.content["runs"][name]
        # the parent process has run these plugins, as the user asked
        chosen = config or compose_layers([Layer("sweep", resolved)], "load")
        run_config(chosen, lease, queue.rules.accept_changed)
    except LeaseLostError:
        raise
    except Exception as error:  # noqa: BLE001 - the sweep goes on; the run's folder has the log
        with lease.writing():
            return _record_failure(queue, folder, error)
    queue.end(name, "done")
    return True


def _record_failure(queue: Queue, folder: RunFolder, error: Exception) -> bool:
    name = folder.path.name
    is_user_error = isinstance(error, UserError)
    reason = str(error if is_user_error else mendable(error) or described(error))
    if disk_is_full(error):  # every other run would fail too
        queue.stop(f"The disk of '{folder.path.parent}' is full; free some space and sweep again")
        return False
    if folder.status().get("state") != "failed":  # refused before it began: there is no folder
        queue.end(name, "failed", reason)
        return True
    if is_user_error and not isinstance(error.__cause__, OSError):
        folder.set_status("failed", final=True)  # a retry would fail equally
    if not is_final_failure(folder.status(), queue.rules.retries):
        log.warning("%s failed and will be tried again: %s", name, reason)
        return False
    queue.end(name, "failed", reason)
    return True


def disk_is_full(error: BaseException | None) -> bool:
    """Return whether a full disk or quota caused an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC) in str(error):  # libraries in other languages wrap it
            return True
        error = error.__cause__ or error.__context__
    return False
