"""Everything a run works with, built from its configuration: data, encoder, model, loss."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from common.batch import Batch
from common.config.run_config import RunConfig
from common.distributed import local_share
from common.problem import Problem
from common.seeding import seed_everything
from common.storage.identity import Identity
from dataset.base import GeneratedRows, HashDataset
from dataset.caption_noise import shuffled_captions
from dataset.loader import SplitView
from dataset.splits import SplitManifest
from models.backbones.base import Backbone, CachedBackbone
from models.base import HashLoss, HashModel, InputRequest, TrainFeatures
from runners.inputs import loading
from runners.inputs.auxiliary import check_complete
from runners.inputs.identity import identity_of
from runners.inputs.image_operations import check
from runners.inputs.row_inputs import RowInputs, given_inputs, row_inputs
from utils.errors import UserError
from utils.heartbeat import heartbeat

log = logging.getLogger("hashing")

EVALUATION = 1 << 40
"""Added to the seed of captions of evaluation, which are drawn apart from those of training."""


@dataclasses.dataclass
class Experiment:
    """The built parts of a run.

    Attributes:
        loss: None for methods without gradient.
        generated: rows that are trained on beside those of the split, or None.
        identity: what it is all made of, by content.
        backbone_name: how results call the encoder.
        inputs_s: seconds spent on decoding images, and on finding or computing features.
        eval_pass: what captions of evaluation are drawn for, with ``data.eval_captions=random``:
            the number of epochs that the model evaluated has seen.
    """

    config: RunConfig
    dataset: HashDataset
    split: SplitManifest
    problem: Problem
    model: HashModel
    loss: HashLoss | None
    device: torch.device
    inputs: RowInputs
    generated: GeneratedRows | None
    identity: Identity
    backbone_name: str
    inputs_s: float = 0.0
    eval_pass: int = 0

    @classmethod
    def build(
        cls, config: RunConfig, device: torch.device | str | None = None,
        meet: Callable[[Identity], None] | None = None,
    ) -> Experiment:  # fmt: skip
        """Build all parts; seeds the global generators just before model and loss are built.

        ``meet`` is told what the parts are, before anything is computed with them; it may raise.

        Raises:
            UserError: parts that do not fit together, missing files, bad data.
        """
        check(config.data)  # before anything is loaded
        target = loading.choose_device(config, device)
        loaded = loading.load_dataset(config)
        dataset = loading.add_generated(config, loaded)
        request = loading.input_request(config, dataset)
        if dataset.features is not None:
            encoder: Backbone = loading.given_features(config, dataset.features, request)
        else:
            encoder = loading.load_encoder(config, request)
        generated = dataset.generated if request.generated_rows else None
        split = _split(config, dataset, generated)
        _rehearse(config, problem_of(config, dataset, split), encoder, request)
        start = time.perf_counter()
        identity = identity_of(loaded, dataset, request, encoder, config.resolved)
        if meet is not None:
            meet(identity)
        if dataset.features is not None:
            inputs = given_inputs(dataset.features, encoder, request)
        else:
            inputs = row_inputs(config, dataset, encoder, request, target)
        inputs_s = time.perf_counter() - start
        split = split.without(inputs.unreadable)
        check_complete(inputs.auxiliary, split)
        problem = problem_of(config, dataset, split)
        # only now: an encoder that is loaded draws an initialisation, one kept from before does not
        seed_everything(config.seed)
        model = config.model.entry.target(config.model.config, problem, inputs.encoder).to(target)
        loss = config.loss.entry.target(config.loss.config, problem) if config.loss else None
        name = str(config.resolved["backbone"].get("config", config.backbone.name))
        return cls(
            config, dataset, split, problem, model, loss.to(target) if loss else None, target,
            inputs, generated, identity, name, inputs_s,
        )  # fmt: skip

    @property
    def auxiliary_sources(self) -> dict[str, str]:
        """Name → source, of the auxiliary inputs and generated rows that the model reads."""
        sources = {name: entry.inputs.source for name, entry in self.inputs.auxiliary.items()}
        if self.generated is not None:
            sources[self.generated.name] = self.generated.source
        return sources

    def describe(self) -> str:
        """Return one line: data, split, encoder, model, loss."""
        parts = ", ".join(
            f"{len(getattr(self.split, part)):,} {part}"
            for part in ("train", "val", "query", "database")
            if len(getattr(self.split, part))
        )
        cached = " (cached features)" if isinstance(self.model.backbone, CachedBackbone) else ""
        loss = self.config.loss.name if self.config.loss else "none"
        return (
            f"{self.dataset.name}: {parts}; split {self.split.hash}; backbone {self.backbone_name}"
            f"{cached}; model {self.config.model.name}; loss {loss}; device {self.device}"
        )

    def view(self, part: str, train: bool = False, noise: bool | None = None) -> SplitView:
        """Return the rows of ``part``; with ``train``, images and captions as in training.

        Others have those of evaluation, and training rows that are only looked at the first.
        ``noise``: whether captions are shuffled as ``data.caption_noise`` says; for training only,
        unless given.
        """
        data, rows, labels = self.config.data, getattr(self.split, part), self.dataset.labels
        inputs = self.inputs.train if train else self.inputs.evaluation
        shuffled = None
        if data.caption_noise > 0 and (train if noise is None else noise):
            shuffled = shuffled_captions(rows, data.caption_noise, self.config.seed)
        evaluated = "first" if part == "train" else data.eval_captions
        view = SplitView(
            rows,
            labels,
            inputs,
            captions=data.captions if train else evaluated,
            caption_rows=shuffled,
            extras=self.dataset.extras,
            auxiliary={
                name: entry.view(rows, labels)
                for name, entry in self.inputs.auxiliary.items()
                if part in entry.inputs.parts
            },
            seed=self.config.seed if train else self.config.seed + EVALUATION,
        )
        view.set_epoch(0 if train else self.eval_pass)
        return view

    def eval_batches(
        self, view: SplitView, positions: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """Yield ``positions`` of ``view``; None: all, under several processes a share of them."""
        if positions is None:
            positions = range(len(view))[local_share(len(view))]
        size = self.config.data.eval_batch_size
        for start in range(0, len(positions), size):
            heartbeat()
            yield view.__getitems__(positions[start : start + size])

    @torch.no_grad()
    def fit_model(self) -> None:
        """Hand the model the pooled features of all training rows, if it asks for them."""
        if not self.model.needs_fit:
            return
        self.model.eval()
        view = self.view("train", noise=True)
        pooled: dict[str, list[torch.Tensor]] = {m: [] for m in self.model.modalities}
        for batch in self.eval_batches(view, range(len(view))):
            batch = batch.to(self.device)
            for modality, parts in pooled.items():
                parts.append(self.model.backbone(batch, modality).pooled.cpu())
        values = {modality: torch.cat(parts) for modality, parts in pooled.items()}
        self.model.fit(TrainFeatures(values.get("image"), values.get("text"), view.labels))


def _rehearse(
    config: RunConfig, problem: Problem, encoder: Backbone, request: InputRequest
) -> None:
    """Build model and loss once for trial, before pictures are read, decoded and encoded.

    What they need of the task and of the encoder's widths is so asked for in time. A component that
    fails otherwise is left to the true building, which has the true encoder.

    Raises:
        UserError: what model or loss raise.
    """
    silent, log.disabled = log.disabled, True  # what they have to say is said by the true ones
    try:
        counts = encoder.token_counts if request.tokens else {}
        stand_in = CachedBackbone(encoder.widths, encoder.token_widths, "", counts)
        config.model.entry.target(config.model.config, problem, stand_in)
        if config.loss:
            config.loss.entry.target(config.loss.config, problem)
    except UserError:
        raise
    except Exception:  # noqa: BLE001 - a plugin may ask for more than a stand-in has
        return
    finally:
        log.disabled = silent


def _split(
    config: RunConfig, dataset: HashDataset, generated: GeneratedRows | None
) -> SplitManifest:
    """Return the split with validation and generated rows, where the run has them."""
    split, size = dataset.split, config.eval.val_size
    if config.eval.select == "val" and not len(split.val) and config.runner.name != "fit":
        rows = round(size * len(split.train)) if isinstance(size, float) else size
        if rows < 1:
            raise UserError(
                f"eval.val_size={size} gives no validation row; give more, or eval.select=last to "
                "train on all rows without selection."
            )
        split = split.with_val(rows, config.dataset.config.split.seed)
    if generated is None:
        return split
    return dataclasses.replace(
        split,
        train=np.concatenate([split.train, generated.rows]),
        rule=f"{split.rule}; train: and {len(generated.rows)} painted pictures of unseen classes",
    )


def problem_of(config: RunConfig, dataset: HashDataset, split: SplitManifest) -> Problem:
    """Return what model and loss may know of the task."""
    attributes = dataset.attributes
    return Problem(
        bits=config.bits,
        n_classes=dataset.labels.shape[1],
        n_train=len(split.train),
        multi_label=dataset.multi_label,
        class_names=dataset.class_names,
        train_labels=torch.from_numpy(np.ascontiguousarray(dataset.labels[split.train])),
        attributes=None if attributes is None else torch.from_numpy(attributes),
        attribute_names=dataset.attribute_names,
        seen_classes=dataset.seen_classes or tuple(range(dataset.labels.shape[1])),
        generator=torch.Generator().manual_seed(config.seed),
    )
