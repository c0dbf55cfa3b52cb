"""Run folders: one for each configuration, named by its hash, written atomically.

``config.yaml`` (resolved), ``status.json``, ``metrics.json``, ``codes.h5`` (and, where a direction
or cut has a best epoch of its own, ``codes-epoch<n>.h5``), ``checkpoints/``, ``history.jsonl``,
``tensorboard/``, ``log.txt``. A run is *done* when ``status.json`` says so,
which is the last thing written, and the files are as they were then: ``status.json`` has the size,
CRC-32 and stamp (:func:`common.storage.checksums.stamp_of`) of each; a file of another stamp, as in
a copied folder, is read.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import platform
import socket
import subprocess
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from common.config.run_config import RunConfig
from common.storage.leases import Lease, Leases
from common.storage.run_files import damaged_file, read_metrics, read_status, record, wrong_config
from utils.errors import UserError
from utils.fence import fenced
from utils.files import file_digest, saying_why, write_json, write_text

SMOKE = ".smoke-"
"""How names of folders begin in which `sweep --smoke` tries runs in miniature."""


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: str | Path) -> None:
        """Refer to a folder; nothing is read or written yet."""
        self.path = Path(path)

    @property
    def is_smoke(self) -> bool:
        """Whether it lies in a folder of `sweep --smoke`, so that its numbers mean nothing."""
        return any(part.startswith(SMOKE) for part in self.path.absolute().parts)

    @property
    def config_file(self) -> Path:
        """The resolved configuration; ``--config`` with it repeats the run."""
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        """The metrics of the run."""
        return self.path / "metrics.json"

    @property
    def codes_file(self) -> Path:
        """Packed codes of query and database."""
        return self.path / "codes.h5"

    def codes_of_epoch(self, epoch: int) -> Path:
        """Codes of an epoch that is the best of a direction or cut, and not the run's."""
        return self.path / f"codes-epoch{epoch}.h5"

    def drop_epoch_codes(self, kept: Collection[int]) -> None:
        """Remove the codes of all other epochs than those ``kept``."""
        names = {self.codes_of_epoch(epoch).name for epoch in kept}
        for file in self.path.glob("codes-epoch*.h5"):
            if file.name not in names:
                with fenced(file):
                    file.unlink(missing_ok=True)

    @property
    def checkpoints(self) -> Path:
        """Folder with ``last`` and ``best``."""
        return self.path / "checkpoints"

    @classmethod
    def create(cls, config: RunConfig) -> RunFolder:
        """Return the folder of ``config`` below its ``output``, created if missing.

        Raises:
            UserError: the folder cannot be written.
        """
        folder = cls(Path(config.output) / config.run_name)
        with saying_why(folder.path, "create the run folder"):
            folder.path.mkdir(parents=True, exist_ok=True)
        if not folder.config_file.is_file() or wrong_config(folder.config_file):
            text = yaml.safe_dump(dict(config.resolved), sort_keys=False, allow_unicode=True)
            write_text(folder.config_file, text)
        return folder

    @classmethod
    def existing(cls, path: str | Path) -> RunFolder:
        """Return the run folder at ``path``.

        Raises:
            UserError: it is no run folder, or one of a run in miniature.
        """
        folder = cls(path)
        if folder.is_smoke:
            raise UserError(
                f"'{path}' is of a run in miniature (sweep --smoke), whose codes mean nothing; "
                "give the folder of a whole run, and remove this one."
            )
        if not folder.config_file.is_file():
            raise UserError(
                f"'{path}' is not a run folder (no config.yaml in it); give the path that "
                "train printed."
            )
        return folder

    def status(self) -> dict[str, Any]:
        """Return ``status.json``, or ``{}`` if it is missing or unreadable.

        Entries that the program reads and that are of another type are left out.
        """
        return read_status(self.path / "status.json")

    def set_status(self, state: str, **more: Any) -> None:
        """Write ``status.json`` atomically: ``state`` is ``running``, ``done`` or ``failed``."""
        status = {**self.status(), "state": state, **more}
        write_json(self.path / "status.json", status)

    def set_done(self, **more: Any) -> None:
        """Write that the run is done, with the checksums of all files in the folder itself."""
        files = {p.name for p in self.path.iterdir() if p.is_file()} - {"status.json", "log.txt"}
        records = {name: record(self.path / name) for name in sorted(files)}
        self.set_status("done", files=records, **more)

    def record_again(self, *names: str) -> None:
        """Put the checksums of files that were rewritten into ``status.json``, if it has any."""
        status = self.status()
        if "files" in status:
            files = status["files"] | {name: record(self.path / name) for name in names}
            self.set_status(status.get("state", "unknown"), files=files)

    @property
    def says_done(self) -> bool:
        """Whether ``status.json`` says that the run has ended well; see :meth:`damage`."""
        return self.status().get("state") == "done"

    @property
    def identity(self) -> dict[str, Any]:
        """What the run was made with by content, as ``status.json`` has it; ``{}``: unknown."""
        recorded = self.status().get("identity")
        return recorded if isinstance(recorded, dict) else {}

    def record_accepted(self, changes: list[dict[str, str]], command: str) -> None:
        """Add to ``status.json`` what the user accepted as changed; once each."""
        before = self.status().get("accepted_changes") or []
        new = [{"command": command, **change} for change in changes]
        known = [{k: v for k, v in entry.items() if k != "when"} for entry in before]
        added = [{"when": now(), **entry} for entry in new if entry not in known]
        if added:
            state = self.status().get("state", "unknown")
            self.set_status(state, accepted_changes=[*before, *added])

    @property
    def is_done(self) -> bool:
        """Whether the run has ended well and all of its results are as they were then."""
        return self.says_done and self.damage() is None

    def damage(self, but: Collection[str] = ()) -> str | None:
        """Return which file of a finished run is not whole, and how; None: all are.

        ``but``: files that the caller does not need. Of a run without checksums, of an earlier
        version, settings, metrics and codes are looked at.
        """
        return damaged_file(self.path, self.status().get("files", {}), but)

    def require_whole(self, but: Collection[str] = ()) -> None:
        """Refuse a finished run with a damaged file; ``but`` as in :meth:`damage`.

        Raises:
            UserError: names the file.
        """
        if reason := self.damage(but):
            raise UserError(
                f"'{self.path}' is damaged: {reason}; train or sweep with its settings again, "
                "which goes on from its checkpoint, or take a whole copy."
            )

    def metrics(self) -> dict[str, Any]:
        """Return ``metrics.json``.

        Raises:
            UserError: it does not exist yet, or is not what a run writes.
        """
        if not self.metrics_file.exists():
            state = self.status().get("state", "unknown")
            raise UserError(
                f"'{self.path}' has no metrics.json yet (its state: {state}); finish its "
                "training first."
            )
        return read_metrics(self.metrics_file)

    @property
    def mark(self) -> str:
        """A text that changes with every checkpoint, to see whether a run makes progress.

        It is of the content, epoch and checksums: two times of two files may be equal.
        """
        try:
            return file_digest(self.checkpoints / "last" / "state.json")
        except OSError:
            return ""

    @contextlib.contextmanager
    def leased(self) -> Iterator[Lease]:
        """Hold a lease on the run; it ends with the process, however that ends.

        A lease of another host without heartbeats is taken over after a whole term.

        Raises:
            UserError: another process works on the run.
        """
        leases = Leases()
        with saying_why(self.path, "create the run folder"):
            while (lease := leases.take(self.path, self.mark)) is None:
                holder = leases.holder(self.path)
                if holder is None:
                    continue
                if holder.is_here or leases.beats(self.path):
                    raise UserError(
                        f"'{self.path}' is being worked on by another process ({holder}); wait for "
                        "it, or choose another output."
                    )
                time.sleep(0.5)
        with lease:
            yield lease


def surroundings() -> dict[str, Any]:
    """Return host, process, start time, versions and revision, for a reader of the results."""
    import torch

    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": now(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "git_revision": _git_revision(),
    }


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@functools.cache
def _git_revision() -> str | None:
    root = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
