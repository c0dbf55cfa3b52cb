"""Stages of a run: each is made once, kept, and found again by every run that needs the same one.

A stage has a name, states all that it depends on, and makes files in a folder of its own. The hash
of the name and of what it depends on is its key: ``<cache>/stages/<name>-<key>``, with a
``stage.json`` that says what went into it. So nothing is ever stale, two processes never make the
same stage twice (one waits for the other), and a later stage depends on an earlier one by its key::

    first = stages.run("similarity", {"labels": ..., "encoder": ...}, build_similarity)
    second = stages.run("centers", {"similarity": first.key, "bits": 32}, build_centers)

What is half made lies in ``<name>-<key>.part`` and stays there when a process is killed, for its
builder to go on from. Under several processes all of them call the builder, so that it may train
together; they must share the cache folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
from torch import nn

from common.config.run_config import RunConfig
from common.distributed import rank_and_world
from common.storage.cache import cache_root, locked
from common.storage.run_folder import RunFolder
from runners.experiment import Experiment
from runners.standard import StandardRunner
from utils.errors import UserError
from utils.files import digest, write_json

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger("hashing")
VERSION = "1"  # part of every key: raise it when what stages make changes
Report = Mapping[str, float | Sequence[float]]
"""What a stage says of itself: name → a number, or a curve (one number per epoch)."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage that is there.

    Attributes:
        name, key: its name, and the hash of what it depends on.
        folder: what it made.
        report: what its builder returned.
        seconds: how long it took, whoever made it.
        run: name of the run that made it.
        found: whether it was there before.
    """

    name: str
    key: str
    folder: Path
    report: Report
    seconds: float
    run: str
    found: bool


class Stages:
    """The stages of one run, which are told in its log and its TensorBoard."""

    def __init__(self, run: Path, tensorboard: bool) -> None:
        """Take the folder of the run."""
        self.run_path = run
        self.tensorboard = tensorboard
        self.done: dict[str, Stage] = {}
        """Name → stage, of those so far, in order."""

    def run(self, name: str, depends: Mapping[str, Any], build: Callable[[Path], Report]) -> Stage:
        """Return the stage, made by ``build(folder)`` if it is not there yet.

        Args:
            name: one word; the same for every run.
            depends: all that decides what is made, as JSON can hold it; tensors by their digest.
            build: makes files in the folder it is handed, which may hold what an earlier, killed
                attempt left; called in every process.
        """
        key = digest(VERSION, name, json.dumps(depends, sort_keys=True))
        target = cache_root() / "stages" / f"{name}-{key}"
        main = rank_and_world()[0] == 0
        log.debug("stage %s: %s", name, target)
        with locked(target.with_name(f"{target.name}.lock")) if main else contextlib.nullcontext():
            found = _of_main(target.is_dir())
            if not found:
                about = {"stage": name, "key": key, "run": self.run_path.name, "depends": depends}
                self._build(target, about, build)
            _of_main(None)  # nobody reads before all is there
        made = _read(target)
        stage = Stage(name, key, target, made["report"], made["seconds"], made["run"], found)
        self.done[name] = stage
        if main:
            self._tell(stage)
        return stage

    def _build(
        self, target: Path, about: Mapping[str, Any], build: Callable[[Path], Report]
    ) -> None:
        part = target.with_name(f"{target.name}.part")
        part.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        report = dict(build(part))
        seconds = round(time.perf_counter() - start, 3)
        _of_main(None)
        if rank_and_world()[0] == 0:
            write_json(part / "stage.json", {**about, "seconds": seconds, "report": report})
            os.replace(part, target)

    def _tell(self, stage: Stage) -> None:
        last = {k: v[-1] if isinstance(v, list) else v for k, v in stage.report.items() if v != []}
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in last.items())
        origin = f"found, made by {stage.run}" if stage.found else f"{stage.seconds:.1f} s"
        log.info("stage %s %s: %s (%s)", stage.name, stage.key, numbers or "done", origin)
        writer = curves(self.run_path, self.tensorboard)
        if writer is not None:
            for name, value in stage.report.items():
                for step, number in enumerate(value if isinstance(value, list) else [value], 1):
                    writer.add_scalar(f"stage/{stage.name}/{name}", number, step)
            writer.add_scalar(f"stage/{stage.name}/seconds", stage.seconds, 1)
            writer.close()


def _of_main(value: Any) -> Any:
    """Return the main process's ``value``; every process waits for it."""
    if rank_and_world()[1] == 1:
        return value
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    torch.distributed.barrier()
    return values[0]


def _read(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "stage.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"Stage '{folder}' is damaged ({error}); remove this folder.") from error


def curves(run: Path, wanted: bool) -> SummaryWriter | None:
    """Return a writer of TensorBoard curves in the folder of a run, in the main process."""
    if rank_and_world()[0] != 0 or not wanted:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run / "tensorboard"))


class StageTraining(StandardRunner):
    """The standard procedure as a stage: checkpoints in the stage's folder, curves in the run's."""

    def __init__(
        self, config: RunConfig, experiment: Experiment, modules: Mapping[str, nn.Module],
        folder: Path, run: Path,
    ) -> None:  # fmt: skip
        """Take what is trained.

        Args:
            config: settings; its hash must be the same for all runs that share the stage.
            experiment: data, and the model and loss to be trained.
            modules: what checkpoints hold, of model and loss.
            folder: the stage's.
            run: folder of the run that trains.
        """
        super().__init__(config)
        self.experiment = experiment
        self.folder = RunFolder(folder)
        self.modules = dict(modules)
        self.run_path = run

    def _modules(self) -> dict[str, nn.Module]:
        return self.modules

    def _writer(self) -> SummaryWriter | None:
        return curves(self.run_path, self.settings.tensorboard)

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints: nobody goes on from a stage that is complete."""
        self.accelerator.wait_for_everyone()  # some may still be reading the best one
        if self.is_main:
            shutil.rmtree(self.folder.checkpoints, ignore_errors=True)
