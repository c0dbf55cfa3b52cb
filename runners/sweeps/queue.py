"""The store of runs as workers see it: what a sweep asks for, who takes what, how each run ended.

What is true of a run stands in its own folder (``status.json``) and in its lease
(:mod:`common.storage.leases`): done is skipped, leased is left alone, a stale lease is taken over
and the run resumes from its checkpoint, failed is tried again up to ``retries`` times. So any
number of workers, of one sweep or of several, on one host or on many that share the folder, drain
it.

A :class:`Session` is one call of ``sweep``: a folder ``<output>/.sweep/<id>`` with the runs that it
asks for (``runs.json``), one small file per run that has ended (``outcomes/``), and, to end it
early, a file ``stop`` with the reason. It is removed at the end; runs do not depend on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
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
from common.storage.leases import Leases, is_alive, this_process
from common.storage.run_folder import RunFolder
from utils.errors import UserError
from utils.files import saying_why, write_json, write_text

log = logging.getLogger("hashing")
DIED = "a worker process died (killed, or out of memory)"


@dataclasses.dataclass(frozen=True)
class Rules:
    """How workers treat runs.

    Attributes:
        retries: how often a run is tried again that failed, or whose worker was lost without a
            checkpoint in between.
        lease_s: seconds without a beat after which a worker of another host counts as gone.
        hang_after_s: seconds without a step, batch or file after which a worker ends itself, for
            another to resume the run; 0 = never.
    """

    retries: int = 1
    lease_s: float = 90.0
    hang_after_s: float = 3600.0

    def __post_init__(self) -> None:
        for name, least in (("retries", 0), ("lease_s", 0.1), ("hang_after_s", 0)):
            if getattr(self, name) < least:
                raise UserError(
                    f"{name}={getattr(self, name)} is not accepted; at least {least} is needed."
                )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one run of a sweep ended: ``done``, ``skipped`` (was done before) or ``failed``."""

    config: RunConfig
    state: str
    reason: str = ""


def folder_of(config: RunConfig) -> RunFolder:
    """Return the run folder of a configuration."""
    return RunFolder(Path(config.output) / config.run_name)


def is_given_up(status: dict[str, Any], retries: int) -> bool:
    """Return whether a run has failed too often, or for a reason that does not pass."""
    return status.get("state") == "failed" and (
        bool(status.get("final")) or status.get("failures", 0) > retries
    )


class Session:
    """One call of ``sweep``, as its workers see it."""

    def __init__(self, folder: Path) -> None:
        """Open a session; ``runs.json`` is read when it is needed."""
        self.folder = folder
        self._content: dict[str, Any] = {}

    @classmethod
    def create(cls, output: Path, configs: Sequence[RunConfig], rules: Rules) -> Session:
        """Write the session of a sweep whose runs go below ``output``."""
        _remove_abandoned(output / ".sweep")
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
        session = cls(output.resolve() / ".sweep" / name)
        with saying_why(session.folder, "create the sweep's folder"):
            (session.folder / "outcomes").mkdir(parents=True)
        content = {
            "owner": this_process(), "cwd": os.getcwd(), "rules": dataclasses.asdict(rules),
            "runs": {config.run_name: dict(config.resolved) for config in configs},
        }  # fmt: skip
        write_json(session.folder / "runs.json", content)
        return session

    @property
    def content(self) -> dict[str, Any]:
        """What ``runs.json`` says: ``owner``, ``cwd``, ``rules``, ``runs`` by name."""
        if not self._content:
            self._content = json.loads((self.folder / "runs.json").read_text(encoding="utf-8"))
        return self._content

    @property
    def names(self) -> list[str]:
        """The runs, in the order in which they are to be done."""
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
        """Tell all workers to end; the first reason stays."""
        if self.stopped() is None:
            write_text(self.folder / "stop", reason)

    def stopped(self) -> str | None:
        """Return the reason why the session is to end, or None while it goes on."""
        try:
            return (self.folder / "stop").read_text(encoding="utf-8")
        except OSError:
            return None if self.folder.is_dir() else "the sweep has ended"

    def remove(self) -> None:
        """Remove the session's folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()


def _remove_abandoned(sessions: Path) -> None:
    """Remove sessions of this host whose process is gone."""
    for folder in sessions.glob("*"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            if not is_alive(json.loads((folder / "runs.json").read_text())["owner"]):
                shutil.rmtree(folder, ignore_errors=True)


def drain(
    session: Session, ended: Callable[[str], None] = lambda name: None,
    configs: Sequence[RunConfig] = (),
) -> None:  # fmt: skip
    """Work until every run of the session has an outcome, or the session is stopped.

    Args:
        session: what is to be done.
        ended: called with the name of each run that this worker has ended.
        configs: configurations that this process has already composed.
    """
    ready = {config.run_name: config for config in configs}
    leases = Leases(session.rules.lease_s)
    left, wait = session.names, 0.02
    while left and session.stopped() is None:
        began = False
        for name in left:
            if session.stopped() is not None:
                return
            if _try_run(session, name, leases, ready.get(name)):
                ended(name)
                began, wait = True, 0.02
        done = session.ended()
        left = [name for name in left if name not in done]
        if left and not began:  # others are at the rest: wait, and take over if they vanish
            time.sleep(wait)
            wait = min(wait * 1.5, 1.0)


def _try_run(session: Session, name: str, leases: Leases, config: RunConfig | None) -> bool:
    """Do a run, if nobody else has it; return whether it now has an outcome of ours."""
    folder = session.run_folder(name)
    if (session.folder / "outcomes" / f"{name}.json").exists():
        return False
    if folder.is_done:  # by a worker of another sweep, or of one that was killed right after
        session.end(name, "done")
        return True
    lease = leases.take(folder.path, folder.mark)
    if lease is None:
        return False
    with lease:
        retries = session.rules.retries
        if name in session.ended():  # while we looked
            return False
        if lease.losses > retries:
            reason = f"{DIED} {lease.losses} times at it; sweep again to go on"
            session.end(name, "failed", reason)
            return True
        if is_given_up(folder.status(), retries):
            session.end(name, "failed", folder.status().get("error", ""))
            return True
        return _attempt(session, name, config, lease)


def _attempt(session: Session, name: str, config: RunConfig | None, lease: Any) -> bool:
    """Run one configuration; whatever goes wrong is its outcome, not the sweep's end."""
    from runners.base import run_config

    folder = session.run_folder(name)
    try:
        resolved = session.content["runs"][name]
        run_config(config or compose_layers([Layer("sweep", resolved)]), lease)
    except Exception as error:  # noqa: BLE001 - the sweep goes on; the run's folder has the log
        return _failed(session, folder, error, lease)
    session.end(name, "done")
    return True


def _failed(session: Session, folder: RunFolder, error: Exception, lease: Any) -> bool:
    name = folder.path.name
    told = isinstance(error, UserError)
    reason = str(error) if told else f"{type(error).__name__}: {error}"
    lease.beat()
    if lease.lost:
        log.warning("%s: another worker goes on with it", name)
        return False
    if disk_is_full(error):  # every other run would fail for it too
        session.stop(f"The disk of '{folder.path.parent}' is full; free some space and sweep again")
        return False
    if folder.status().get("state") != "failed":  # refused before it began, nothing is kept
        session.end(name, "failed", reason)
        return True
    if told and not isinstance(error.__cause__, OSError):
        folder.set_status("failed", final=True)  # the same again would end the same
    if not is_given_up(folder.status(), session.rules.retries):
        log.warning("%s failed and will be tried again: %s", name, reason)
        return False
    session.end(name, "failed", reason)
    return True


def disk_is_full(error: BaseException | None) -> bool:
    """Return whether a full disk or quota is behind an error."""
    full = (errno.ENOSPC, errno.EDQUOT)
    while error is not None:
        if isinstance(error, OSError) and error.errno in full:
            return True
        if os.strerror(errno.ENOSPC) in str(error):  # libraries of other languages wrap it
            return True
        error = error.__cause__ or error.__context__
    return False
