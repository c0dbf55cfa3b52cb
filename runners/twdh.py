"""TwDH's two steps as stages: transforms for every short length, one long network for all of them.

The long network depends on no short length (unless ``loss.low_rate`` is given), so its key leaves
them out: the first run of a sweep trains it, the others reuse it and only encode. Its epoch is
selected by the long code, which is what is trained; selected by short codes it would depend on
which of them a run has. That is what ``eval.epoch_per`` other than ``run`` asks for, as the release
does it: epochs are chosen by the run's own codes, for each direction or cut, so every length trains
the network again.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import nn

from common.config.run_config import RunConfig
from common.registry import RUNNERS
from common.storage import checkpoint
from common.storage.run_folder import RunFolder
from models.centers.twdh_transforms import (
    ReleasedConfig,
    projection,
    regression,
    released,
    reproduced,
)
from models.cross_modal.twdh import TwDH, TwDHLoss
from runners.base import not_accepted
from runners.evaluation.selection import Selection, criteria
from runners.staged import (
    Report,
    Stage,
    StagedRunner,
    StageTraining,
    array_digest,
    data_identity,
    settings_identity,
)
from runners.standard import StandardConfig
from runners.training.history import read_history, write_history
from utils.errors import UserError
from utils.files import atomic_path

Recipe = Literal["regression", "projection", "released", "files"]


@dataclasses.dataclass(frozen=True)
class TwDHConfig(StandardConfig):
    """Keys of ``runner`` with ``name: twdh``, beside those of ``standard``."""

    transform: Recipe = "regression"  # see models/centers/twdh_transforms.py; files: model.files
    ridge: float = 0.1  # λ of `regression`
    released: ReleasedConfig = ReleasedConfig()  # of `released`


@RUNNERS.register("twdh", config=TwDHConfig)
class TwDHRunner(StagedRunner):
    """Fit transforms, train the long network once for all lengths, encode with the run's own."""

    settings: TwDHConfig

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        loss = config.loss.entry.target if config.loss else None
        if config.model.entry.target is not TwDH or loss is not TwDHLoss:
            raise UserError(
                "Runner 'twdh' trains one long network for all lengths, so it needs model.name=twdh"
                f" and loss.name=twdh, not '{config.model.name}' and "
                f"'{config.loss.name if config.loss else 'none'}'; give runner=standard for others."
            )
        if self.settings.transform == "files" and config.model.config.files is None:
            raise not_accepted(
                "transform", "files", "model.files=DIR is needed, the authors' folder of a dataset."
            )
        numbers = {"ridge": self.settings.ridge, "released.epochs": self.settings.released.epochs,
                   "released.batch_size": self.settings.released.batch_size}  # fmt: skip
        for name, value in numbers.items():
            if value <= 0:
                raise not_accepted(name, value, "a number above 0 is needed.")

    def train(self) -> Selection:
        """Build or reuse both stages, and load the network of the selected epoch into the model."""
        model = self.experiment.model
        assert isinstance(model, TwDH)
        transforms = [self._transform(model, length) for length in model.lengths]
        network = self._network(model, transforms)
        checkpoint.load_modules(network.folder / "network", self._long_modules())
        state = checkpoint.read_state(network.folder / "network")
        selection = Selection(**state)
        own = set(selection.epochs.values()) - {selection.epoch}
        if self.is_main:
            for epoch in own:
                with atomic_path(self.folder.codes_of_epoch(epoch)) as temporary:
                    shutil.copyfile(RunFolder(network.folder).codes_of_epoch(epoch), temporary)
            name = "last" if selection.on == "last" else "best"
            checkpoint.save(self.folder.checkpoints / name, self.modules(), state=state)
            write_history(self.folder.path, read_history(network.folder))
        self.accelerator.wait_for_everyone()  # all read the codes of epochs
        return selection

    def _transform(self, model: TwDH, length: int) -> Stage:
        """Build or reuse the transform of a length and set it in the model."""
        label = self.experiment.problem.train_labels
        assert label is not None
        label = label.to(model.long_centers)
        long, short = model.long_centers, model.short_centers(length)
        recipe, settings = self.settings.transform, self.settings
        given: torch.Tensor | None = None
        if recipe == "files" and model.files is not None:
            given = model.files.transform(model.config.long_bits, length).to(long)

        def build(folder: Path) -> Report:
            report: dict[str, Any] = {}
            if given is not None:
                matrix = given
            elif recipe == "projection":
                matrix = projection(long, short)
            elif recipe == "regression":
                matrix = regression(long, short, label, settings.ridge)
            else:
                generator = torch.Generator().manual_seed(self.config.seed)
                matrix, report = released(long, short, label, settings.released, generator)
            report["centre_bits"] = report.get("centre_bits", reproduced(matrix, long, short))
            if self.is_main:
                save_file({"transform": matrix.cpu()}, folder / "transform.safetensors")
            return report

        depends = {
            "recipe": recipe,
            "settings": {
                "files": None if given is None else array_digest(given),
                "projection": None,
                "regression": settings.ridge,
                "released": {
                    **dataclasses.asdict(settings.released),
                    "seed": self.config.seed,
                    "softmax": "plain",  # stages of its sigmoid form are others
                },
            }[recipe],
            "long_centers": array_digest(long),
            "short_centers": array_digest(short),
            "labels": None if recipe in ("projection", "files") else array_digest(label),
        }
        stage = self.stages.run(f"transform_{length}", depends, build)
        model.set_transform(length, stage.tensor("transform"))
        return stage

    def _network(self, model: TwDH, transforms: Sequence[Stage]) -> Stage:
        """Train or reuse the long network."""
        bits, config = self.config.bits, self._long_config(model)
        own_epochs = self.config.eval.epoch_per != "run"

        def build(folder: Path) -> Report:
            model.set_bits(bits if own_epochs else model.config.long_bits)  # epochs are measured so
            training = StageTraining(
                config, self.experiment, self._long_modules(), folder, self.tensorboard_folder
            )
            selection = training.train()
            model.set_bits(bits)
            if self.is_main:
                state = dataclasses.asdict(selection)
                checkpoint.save(folder / "network", self._long_modules(), state=state)
            training.remove_checkpoints()
            numbers = {"epoch": selection.epoch, "score": selection.score}
            return {name: value for name, value in numbers.items() if value is not None}

        centers = array_digest(model.long_centers)
        depends = {**data_identity(self.experiment), "long_centers": centers}
        depends["settings"] = settings_identity(config)
        if self._trains_short:
            depends["transforms"] = [stage.key for stage in transforms]
        if own_epochs:
            transform = self.stages.done.get(f"transform_{bits}")  # none of the long length
            depends["measured"] = [bits, transform.key if transform else None]
        return self.stages.run("network", depends, build)

    @property
    def _trains_short(self) -> bool:
        assert self.config.loss is not None
        return self.config.loss.config.low_rate != 0

    def _long_modules(self) -> dict[str, nn.Module]:
        """Return what the second stage trains: all but the constants of the short lengths."""
        model, loss = self.experiment.model, self.experiment.loss
        assert isinstance(model, TwDH) and loss is not None
        return {
            "model": nn.ModuleDict({"backbone": model.backbone, "heads": model.heads}),
            "loss": loss,
        }

    def _long_config(self, model: TwDH) -> RunConfig:
        """Return the settings of the second stage: equal for all runs that share it."""
        bits, resolved = model.config.long_bits, self.stage_settings()
        resolved["bits"] = bits
        by = None if self.config.eval.select == "last" else criteria(self.config.eval)
        resolved["eval"] |= {"at": None, "measure": by}
        lengths = model.lengths if self._trains_short else None
        resolved["model"]["short_bits"] = resolved["loss"]["short_bits"] = lengths
        return dataclasses.replace(self.config, bits=bits, resolved=resolved)
