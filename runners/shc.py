"""SHC's three stages, classifier, class similarity and centres, and then the hashing network.

The classifier depends on no code length and on no loss: the first run of a sweep trains it, the
others reuse it. The similarity depends on the classifier's logits, the centres on the similarity,
all by content. The hashing network is trained by the run itself.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.config.run_config import Component, OptimGroup, RunConfig
from common.distributed import gather_rows
from common.registry import RUNNERS
from common.seeding import seed_everything
from models.centers.class_similarity import OwnClass, Weighting, class_similarity
from models.centers.recipes import CenterKind, make_centers
from models.centers.semantic import (
    CenterReport,
    center_report,
    gilbert_varshamov,
    semantic_centers,
)
from models.image.image_hash import StandardizeConfig
from models.image.shc import Classifier, ClassifierLoss, SHCLoss
from runners.base import not_accepted
from runners.evaluation.selection import Selection
from runners.experiment import Experiment
from runners.staged import (
    Report,
    Stage,
    StagedRunner,
    StageTraining,
    data_identity,
    settings_identity,
)
from runners.standard import StandardConfig
from runners.tensorboard.figures import distance_histogram, heat_maps
from utils.errors import UserError

log = logging.getLogger("hashing")


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """Keys of ``runner.classifier``; optimiser and schedule are those of the hashing network."""

    epochs: int = 100  # of the classifier, the first stage
    lr: float | None = None  # of every parameter group; None: as for the hashing network
    floor: float | None = None  # of a cosine schedule; None: as for it; 0 as released
    logits_of: Literal["plain", "augmented"] = "plain"  # training pictures, for the similarity
    cross_entropy: Literal["probabilities", "logits"] = "probabilities"  # what its softmax is of


@dataclasses.dataclass(frozen=True)
class SHCRunnerConfig(StandardConfig):
    """Keys of ``runner`` with ``name: shc``, beside those of ``standard``."""

    classifier: ClassifierConfig = ClassifierConfig()
    own_class: OwnClass = "label"  # of a row, see models/centers/class_similarity.py
    weighting: Weighting = "sum"  # of the rows of a class
    centers: Literal["semantic", CenterKind] = "semantic"  # others: without the first two stages
    min_distance: int | None = None  # d; None: the bound of Gilbert and Varshamov
    mu: float = 0.0  # μ, see models/centers/semantic.py
    effort: float = 1.0  # of the search for centres; 1: some seconds


@RUNNERS.register("shc", config=SHCRunnerConfig)
class SHCRunner(StagedRunner):
    """Train or find a classifier, its class similarity and the centres; train the network."""

    settings: SHCRunnerConfig

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        loss = config.loss.entry.target if config.loss else None
        if not (isinstance(loss, type) and issubclass(loss, SHCLoss)):
            raise UserError(
                "Runner 'shc' makes hash centres for loss.name=shc, not for "
                f"'{config.loss.name if config.loss else 'none'}'; give runner=standard for others."
            )
        settings, distance = self.settings, self.settings.min_distance
        if settings.classifier.epochs < 1:
            epochs = settings.classifier.epochs
            raise not_accepted("classifier.epochs", epochs, "at least 1 is needed.")
        others = {group.schedule.name for group in config.optim.values()} - {"cosine"}
        if settings.classifier.floor is not None and others:
            raise UserError(
                f"runner.classifier.floor={settings.classifier.floor} is of a cosine schedule, and "
                f"this run has schedule.name={others.pop()}; leave it out, or give "
                "schedule.name=cosine."
            )
        if not settings.effort > 0:
            raise not_accepted("effort", settings.effort, "a number above 0 is needed.")
        if distance is not None and not 0 <= distance <= config.bits:
            raise UserError(
                f"runner.min_distance={distance} is not accepted with bits={config.bits}; 0 to "
                f"{config.bits} is needed, or none for the bound of Gilbert and Varshamov."
            )

    def train(self) -> Selection:
        """Build or reuse the stages, set the centres, and train the hashing network."""
        loss = self.experiment.loss
        assert isinstance(loss, SHCLoss)
        similarity: Stage | None = None
        if self.settings.centers == "semantic":
            similarity = self._similarity(self._classifier())
        centers = self._centers(similarity)
        loss.set_centers(centers)
        self._draw(centers, None if similarity is None else similarity.tensor("similarity"))
        seed_everything(self.config.seed)  # the same draws whether stages were built or reused
        return super().train()

    def notes(self) -> dict[str, Any]:
        """Return the notes of a staged run and the figures of the centres."""
        centers = {"kind": self.settings.centers, **self.stages.done["centers"].report}
        return {**super().notes(), "centers": centers}

    @property
    def _required_distance(self) -> int | None:
        """The least distance that the search for centres aims at, if there is one."""
        if self.settings.centers != "semantic":
            return None
        bits, configured = self.config.bits, self.settings.min_distance
        bound = min(gilbert_varshamov(bits, self.experiment.problem.n_classes), bits)
        return bound if configured is None else configured

    def _classifier(self) -> Stage:
        """Train or reuse the classifier; the stage holds its logits of the training rows."""
        config = self._classifier_config()

        def build(folder: Path) -> Report:
            experiment = self._classifier_experiment()
            training = StageTraining(
                config, experiment, {"classifier": experiment.model}, folder,
                self.tensorboard_folder / "classifier",  # beside the curves of the network
            )  # fmt: skip
            training.train()
            logits = self._logits(experiment)
            label = experiment.view("train").labels
            correct = label.gather(1, logits.argmax(1, keepdim=True)) > 0
            if self.is_main:
                values = {"logits": logits, "label": label.float().contiguous()}
                save_file(values, folder / "logits.safetensors")
            training.remove_checkpoints()
            return {"train_accuracy": correct.float().mean().item()}

        depends = {**data_identity(self.experiment), "settings": settings_identity(config)}
        return self.stages.run("classifier", depends, build)

    def _similarity(self, classifier: Stage) -> Stage:
        """Build or reuse the class similarity."""
        own_class, weighting = self.settings.own_class, self.settings.weighting

        def build(folder: Path) -> Report:
            saved = load_file(classifier.folder / "logits.safetensors")
            similarity = class_similarity(saved["logits"], saved["label"], own_class, weighting)
            if self.is_main:
                save_file({"similarity": similarity}, folder / "similarity.safetensors")
            between = similarity[~torch.eye(len(similarity), dtype=torch.bool)]
            figures = {"asymmetry": (similarity - similarity.T).abs().max().item()}
            if len(between):
                figures |= {"least": between.min().item(), "mean": between.mean().item()}
            return figures

        depends = {"classifier": classifier.key, "own_class": own_class, "weighting": weighting}
        return self.stages.run("similarity", depends, build)

    def _centers(self, similarity: Stage | None) -> Tensor:
        """Build or reuse the centres [C,K] of ±1."""
        settings, problem = self.settings, self.experiment.problem
        kind, seed = settings.centers, self.config.seed
        classes, bits = problem.n_classes, problem.bits
        depends: dict[str, Any] = {"kind": kind, "classes": classes, "bits": bits, "seed": seed}
        if similarity is not None:
            depends |= {"similarity": similarity.key, "distance": self._required_distance}
            depends |= {"mu": settings.mu, "effort": settings.effort}

        def build(folder: Path) -> Report:
            if not self.is_main:
                return {}
            generator = torch.Generator().manual_seed(seed)
            if kind == "semantic":
                assert similarity is not None
                target = similarity.tensor("similarity")
                centers = semantic_centers(
                    target, bits, generator,
                    distance=self._required_distance, mu=settings.mu, effort=settings.effort,
                )  # fmt: skip
            else:
                target = torch.eye(classes)
                centers = make_centers(kind, classes, bits, generator)
            save_file({"centers": centers.contiguous()}, folder / "centers.safetensors")
            return self._figures(center_report(centers, target))

        stage = self.stages.run("centers", depends, build)
        required, least = self._required_distance, stage.report["min"]
        if required is not None and isinstance(least, (int, float)) and least < required:
            log.info("centres: no %d of distance %d were found; they keep %d", classes,
                     required, least)  # fmt: skip
        return stage.tensor("centers")

    def _figures(self, report: CenterReport) -> dict[str, float]:
        """Return the figures of centres, those of the fit only where a similarity was fitted."""
        figures = dataclasses.asdict(report)
        if self._required_distance is None:
            figures = {k: v for k, v in figures.items() if k not in ("objective", "correlation")}
        else:
            figures["asked"] = self._required_distance
        return {name: value for name, value in figures.items() if value == value}  # no NaN

    def _draw(self, centers: Tensor, similarity: Tensor | None) -> None:
        """Draw the similarity, the products of centres and their distances in TensorBoard."""
        writer = self.open_writer()
        if writer is None:
            return
        bits = centers.shape[1]
        products = centers @ centers.T / bits
        matrices = {"products of centres / K": products.numpy()}
        if similarity is not None:
            matrices = {"similarity": similarity.numpy(), **matrices}
        names = self.experiment.problem.class_names
        writer.add_figure("stage/centers/products", heat_maps(matrices, names), 1)
        row, column = torch.triu_indices(len(products), len(products), offset=1)
        distances = (bits * (1 - products[row, column]) / 2).round().int().numpy()
        figure = distance_histogram(distances, bits, self._required_distance)
        writer.add_figure("stage/centers/distances", figure, 1)
        writer.close()

    def _classifier_config(self) -> RunConfig:
        """Return the settings of stage 1: equal for all runs that share it."""
        classifier = self.settings.classifier
        resolved = self.stage_settings()
        resolved["runner"] |= dataclasses.asdict(classifier)
        resolved |= {"bits": None, "loss": {}, "eval": {}}
        resolved["model"] = {"standardize": self._standardize}
        optim: dict[str, OptimGroup] = dict(self.config.optim)
        if (lr := classifier.lr) is not None:
            optim = {name: dataclasses.replace(g, lr=lr) for name, g in optim.items()}
            groups = {name: {**g, "lr": lr} for name, g in resolved["optim"]["groups"].items()}
            resolved["optim"] |= {"lr": lr, "groups": groups}
        if classifier.floor is not None:
            optim = {name: _with_floor(group, classifier.floor) for name, group in optim.items()}
        settings = dataclasses.replace(self.settings, epochs=classifier.epochs)
        return dataclasses.replace(
            self.config, resolved=resolved, optim=optim,
            runner=Component(self.config.runner.entry, settings),
            eval=dataclasses.replace(self.config.eval, select="last", epoch_per="run"),
        )  # fmt: skip

    @property
    def _standardize(self) -> bool:
        return bool(getattr(self.experiment.model.config, "standardize", False))

    def _classifier_experiment(self) -> Experiment:
        """Return the run's data with a new classifier on a copy of its encoder."""
        experiment, model = self.experiment, self.experiment.model
        seed_everything(self.config.seed)
        classifier = Classifier(
            StandardizeConfig(self._standardize), experiment.problem, copy.deepcopy(model.backbone)
        )
        if self._standardize:
            classifier.standardize.load_state_dict(model.get_submodule("standardize").state_dict())
        loss = ClassifierLoss(self.settings.classifier.cross_entropy)
        return dataclasses.replace(
            experiment, model=classifier.to(experiment.device), loss=loss.to(experiment.device)
        )

    @torch.no_grad()
    def _logits(self, experiment: Experiment) -> Tensor:
        """Return the logits of all training rows [N,C], in evaluation mode, on the CPU."""
        experiment.model.eval()
        logits = [torch.empty(0, experiment.problem.n_classes, device=self.device)]
        augmented = self.settings.classifier.logits_of == "augmented"
        for batch in experiment.eval_batches(experiment.view("train", train=augmented)):
            logits.append(experiment.model.encode(batch.to(self.device), "image").float())
        return gather_rows(torch.cat(logits)).cpu()


def _with_floor(group: OptimGroup, floor: float) -> OptimGroup:
    """Return the settings of a group whose cosine schedule ends at ``floor``."""
    config = dataclasses.replace(group.schedule.config, floor=floor)
    return dataclasses.replace(group, schedule=dataclasses.replace(group.schedule, config=config))
