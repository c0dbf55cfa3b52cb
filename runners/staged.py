"""Stages of a run: each is built once, stored in the cache, and reused by every run that needs it.

A stage has a name, states all that it depends on, and writes files into a folder of its own. The
hash of the name and of what it depends on is its key: ``<cache>/stages/<name>-<key>``, with a
``stage.json`` that says what went into it. So nothing is ever stale, two processes never build the
same stage twice (one waits for the other), and a later stage depends on an earlier one by its key::

    first = stages.run("similarity", {"labels": ..., "encoder": ...}, build_similarity)
    second = stages.run("centers", {"similarity": first.key, "bits": 32}, build_centers)

An unfinished stage lies in ``<name>-<key>.part`` and stays there when a process is killed, so that
its builder can go on from it. Under several processes all of them call the builder, so that it may
train together; they must share the cache folder.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from safetensors.torch import load_file
from torch import Tensor, nn

from common.config import schema
from common.config.run_config import NOT_IDENTITY, RunConfig
from common.distributed import rank_and_world
from common.storage.cache import cache_root, locked, whole_or_removed
from common.storage.checksums import seal
from common.storage.run_folder import RunFolder
from runners.experiment import Experiment
from runners.standard import StandardConfig, StandardRunner
from runners.tensorboard.run_writer import open_writer
from utils import files
from utils.errors import UserError
from utils.files import digest, sync, write_json

log = logging.getLogger("hashing")
VERSION = "1"  # part of every key: raise it when the content of stages changes
Report = Mapping[str, float | Sequence[float]]
"""Figures of a stage: name → a number, or a curve (one number per epoch)."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage that is complete.

    Attributes:
        name, key: its name, and the hash of what it depends on.
        folder: its files.
        report: what its builder returned.
        seconds: how long it took, in whichever run.
        run: name of the run that built it.
        reused: whether it was there before.
    """

    name: str
    key: str
    folder: Path
    report: Report
    seconds: float
    run: str
    reused: bool

    def tensor(self, name: str) -> Tensor:
        """Return the tensor ``name`` of the file ``<name>.safetensors``."""
        return load_file(self.folder / f"{name}.safetensors")[name]


class Stages:
    """The stages of one run, which its log and its TensorBoard show."""

    def __init__(self, run: Path, tensorboard: bool) -> None:
        self.run_path = run
        self.tensorboard = tensorboard
        self.done: dict[str, Stage] = {}
        """Name → stage, of those so far, in order."""

    def run(self, name: str, depends: Mapping[str, Any], build: Callable[[Path], Report]) -> Stage:
        """Return the stage, built by ``build(folder)`` if it is not there yet.

        Args:
            name: one word; the same for every run.
            depends: all that decides its content, as JSON can hold it; tensors by their digest.
            build: writes files into the folder it is handed, which may hold those of an earlier,
                killed attempt; called in every process.
        """
        key = digest(VERSION, name, json.dumps(depends, sort_keys=True))
        target = cache_root() / "stages" / f"{name}-{key}"
        main = rank_and_world()[0] == 0
        log.debug("stage %s: %s", name, target)
        with locked(target.with_name(f"{target.name}.lock")) if main else contextlib.nullcontext():
            reused = _broadcast(main and whole_or_removed(target))
            if not reused:
                part = target.with_name(f"{target.name}.part")
                part.mkdir(parents=True, exist_ok=True)
                start = time.perf_counter()
                report = dict(build(part))
                seconds = round(time.perf_counter() - start, 3)
                _broadcast(None)
                if main:
                    about = {"stage": name, "key": key, "run": self.run_path.name}
                    figures = {"depends": depends, "seconds": seconds, "report": report}
                    write_json(part / "stage.json", about | figures)
                    sync(part)
                    os.replace(part, target)
                    seal(target)
            _broadcast(None)  # nobody reads before all is there
        record = _read(target)
        stage = Stage(name, key, target, record["report"], record["seconds"], record["run"], reused)
        self.done[name] = stage
        if main:
            self._show(stage)
        return stage

    def _show(self, stage: Stage) -> None:
        last = {k: v[-1] if isinstance(v, list) else v for k, v in stage.report.items() if v != []}
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in last.items())
        origin = f"found, made by {stage.run}" if stage.reused else f"{stage.seconds:.1f} s"
        log.info("stage %s %s: %s (%s)", stage.name, stage.key, numbers or "done", origin)
        if not self.tensorboard:
            return
        with open_writer(self.run_path / "tensorboard") as writer:
            for name, value in stage.report.items():
                for step, number in enumerate(value if isinstance(value, list) else [value], 1):
                    writer.add_scalar(f"stage/{stage.name}/{name}", number, step)
            writer.add_scalar(f"stage/{stage.name}/seconds", stage.seconds, 1)


def _broadcast(value: Any) -> Any:
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


class StagedRunner(StandardRunner):
    """The standard procedure with stages.

    Subclasses define ``train()``, which builds or reuses stages by ``self.stages.run()``.
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.stages = Stages(self.folder.path, self.settings.tensorboard)

    def notes(self) -> dict[str, Any]:
        """Return the usual notes and the key of every stage."""
        keys = {name: stage.key for name, stage in self.stages.done.items()}
        return {**super().notes(), "stages": keys}

    def timing_notes(self) -> dict[str, float]:
        """Return the seconds of every stage, in whichever run it was built.

        ``train_s`` is this run's own time: next to nothing where all stages were there.
        """
        return {f"stage_{name}_s": stage.seconds for name, stage in self.stages.done.items()}

    def stage_settings(self) -> dict[str, Any]:
        """Return a copy of the resolved settings, to be changed into those of a stage.

        Method and dataset are left out (data is identified by its content), and so are the runner's
        keys that the standard procedure does not have.
        """
        resolved = {**copy.deepcopy(dict(self.config.resolved)), "method": None, "dataset": {}}
        standard = {field.name for field in dataclasses.fields(StandardConfig)}
        for field in dataclasses.fields(self.settings):
            if field.name not in standard:
                del resolved["runner"][field.name]
        return resolved


class StageTraining(StandardRunner):
    """The standard procedure as a stage, with checkpoints in the stage's folder."""

    def __init__(
        self, config: RunConfig, experiment: Experiment, modules: Mapping[str, nn.Module],
        folder: Path, tensorboard: Path,
    ) -> None:  # fmt: skip
        """Take what is trained, and of it what checkpoints hold (``modules``).

        The hash of ``config`` must be the same for all runs that share the stage; ``tensorboard``
        is in the folder of the run that trains.
        """
        super().__init__(config)
        self.experiment = experiment
        self.folder = RunFolder(folder)
        self.tensorboard_folder = tensorboard
        self.trained_modules = dict(modules)

    def modules(self) -> dict[str, nn.Module]:
        """Return the modules that were handed over."""
        return self.trained_modules

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints: nobody goes on from a stage that is complete."""
        self.accelerator.wait_for_everyone()  # some may still be reading the best one
        if self.is_main:
            shutil.rmtree(self.folder.checkpoints, ignore_errors=True)


def settings_identity(config: RunConfig) -> dict[str, Any]:
    """Return all settings that decide a result, by dotted key, and plugins by their content."""
    flat = schema.flat(config.resolved)
    identity = {k: v for k, v in flat.items() if k not in NOT_IDENTITY}
    return identity | {"plugins": config.plugin_digests}


def data_identity(experiment: Experiment) -> dict[str, Any]:
    """Return rows, labels, pictures, captions and encoder, each by its content."""
    dataset = experiment.dataset
    captions = [digest(*row) for row in dataset.texts or ()]
    return {
        "split": experiment.split.hash,
        "labels": array_digest(dataset.labels),
        "images": dataset.images.fingerprint,
        "captions": digest(*captions),
        "encoder": experiment.model.backbone.fingerprint,
    }


def array_digest(values: Tensor | np.ndarray) -> str:
    """Return a hash of type, shape and values."""
    return files.array_digest(values.cpu().numpy() if isinstance(values, Tensor) else values)
