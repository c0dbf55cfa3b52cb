"""Everything a run works with, built from its configuration: data, encoder, model, loss."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from common.batch import Batch
from common.config.run_config import RunConfig
from common.devices import find_device
from common.distributed import local_share
from common.problem import Problem
from common.seeding import seed_everything
from dataset.auxiliary.captions import with_generated
from dataset.auxiliary.pseudo_images import TGI
from dataset.base import HashDataset
from dataset.caption_noise import shuffled_captions
from dataset.images import Geometry, ImageCache
from dataset.loader import SplitView, flatten_captions
from dataset.splits import SplitManifest
from dataset.stacked import sources_of, stack
from models.backbones.base import CachedBackbone
from models.backbones.build import build_backbone
from models.base import Backbone, HashLoss, HashModel, TrainFeatures
from runners.inputs import features
from runners.inputs.auxiliary import OtherSource, check_complete, chosen_inputs, other_source
from utils.errors import UserError
from utils.heartbeat import heartbeat

log = logging.getLogger("hashing")


@dataclasses.dataclass
class Experiment:
    """The built parts of a run.

    Attributes:
        config: what it was built from.
        dataset, split, problem, model, loss: the parts; ``loss`` is None for methods without
            gradient.
        device: where model and loss are.
        sources: what :class:`~dataset.loader.SplitView` needs, for training and for evaluation.
        backbone_name: how results call the encoder.
        skipped: pictures that could not be read and were left out.
        others: further inputs that the model reads, by name.
        inputs_s: seconds that decoding pictures, and finding or computing features took.
    """

    config: RunConfig
    dataset: HashDataset
    split: SplitManifest
    problem: Problem
    model: HashModel
    loss: HashLoss | None
    device: torch.device
    sources: dict[str, dict[str, Any]]
    backbone_name: str
    skipped: int = 0
    others: dict[str, OtherSource] = dataclasses.field(default_factory=dict)
    inputs_s: float = 0.0

    @classmethod
    def build(cls, config: RunConfig, device: torch.device | str | None = None) -> Experiment:
        """Build all parts; seeds the global generators just before model and loss are built.

        Raises:
            UserError: parts that do not fit together, missing files, bad data.
        """
        place = choose_device(config, device)
        dataset = load_dataset(config)
        if config.data.generated is not None:
            dataset = with_generated(dataset, config.data.generated)
        modalities = modalities_of(config, dataset)
        method, keys = config.model.entry.target, config.model.config
        backbone = load_backbone(config, method.towers_of(keys, modalities))
        method.prepare(keys, backbone)
        start = time.perf_counter()
        sources, others, bad_rows, backbone = _sources(config, dataset, backbone, place)
        inputs_s = time.perf_counter() - start
        split = _with_painted(_split(config, dataset), others).without(bad_rows)
        check_complete(others, split)
        problem = problem_of(config, dataset, split)
        # only now: an encoder that is loaded draws an initialisation, one kept from before does not
        seed_everything(config.seed)
        model = method(keys, problem, backbone).to(place)
        loss = config.loss.entry.target(config.loss.config, problem) if config.loss else None
        return cls(
            config, dataset, split, problem, model, loss.to(place) if loss else None, place,
            sources,
            str(config.resolved["backbone"].get("config", config.backbone.name)), len(bad_rows),
            others, inputs_s,
        )  # fmt: skip

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
        """Return the rows of ``part``; ``train`` asks for augmentation and drawn captions.

        ``noise``: whether captions are shuffled as ``data.caption_noise`` says; for training only,
        unless given.
        """
        data, rows = self.config.data, getattr(self.split, part)
        told = None
        if data.caption_noise > 0 and (train if noise is None else noise):
            told = shuffled_captions(rows, data.caption_noise, self.config.seed)
        return SplitView(
            rows,
            self.dataset.labels,
            caption_rows=told,
            others={
                name: other.view(rows, self.dataset.labels)
                for name, other in self.others.items()
                if part in other.inputs.parts
            },
            augment=data.augment if train and "images" in self.sources["train"] else "none",
            captions=data.captions if train else "first",
            extras=self.dataset.extras,
            seed=self.config.seed,
            **self.sources["train" if train else "eval"],
        )

    def eval_batches(self, view: SplitView) -> Iterator[Batch]:
        """Yield the rows of ``view`` in order; under several processes, this one's share."""
        share = local_share(len(view))
        size = self.config.data.eval_batch_size
        for start in range(share.start, share.stop, size):
            heartbeat()
            yield view.__getitems__(range(start, min(start + size, share.stop)))

    @torch.no_grad()
    def fit_model(self) -> None:
        """Hand the model the pooled features of all training rows, if it asks for them."""
        if not self.model.needs_fit:
            return
        self.model.eval()
        view = self.view("train", noise=True)
        pooled: dict[str, list[torch.Tensor]] = {m: [] for m in self.model.modalities}
        size = self.config.data.eval_batch_size
        for start in range(0, len(view), size):
            batch = view.__getitems__(range(start, min(start + size, len(view)))).to(self.device)
            for modality, parts in pooled.items():
                parts.append(self.model.backbone(batch, modality).pooled.cpu())
        values = {modality: torch.cat(parts) for modality, parts in pooled.items()}
        self.model.fit(TrainFeatures(values.get("image"), values.get("text"), view.labels))


def choose_device(config: RunConfig, device: torch.device | str | None = None) -> torch.device:
    """Return the device asked for; ``auto`` takes a GPU where there is one."""
    name = str(device or getattr(config.runner.config, "device", "auto"))
    return find_device(name, "runner.device=")


_datasets: dict[str, HashDataset] = {}
_backbones: dict[str, Backbone] = {}


def load_dataset(config: RunConfig) -> HashDataset:
    """Return the dataset, kept in memory for the next run of a sweep that uses the same one."""
    key = repr((config.dataset_name, config.resolved["dataset"]))
    if key not in _datasets:
        _datasets.clear()
        _datasets[key] = config.dataset.entry.target(config.dataset.config, config.dataset_name)
    return _datasets[key]


def load_backbone(config: RunConfig, modalities: tuple[str, ...]) -> Backbone:
    """Return the encoder; a frozen one is kept in memory for the next run that uses the same."""
    key = repr((config.resolved["backbone"], modalities))
    if key in _backbones:
        return _backbones[key]
    backbone = build_backbone(config.backbone.name, config.backbone.config, modalities)
    if not any(parameter.requires_grad for parameter in backbone.parameters()):
        _backbones.clear()
        _backbones[key] = backbone
    return backbone


def modalities_of(config: RunConfig, dataset: HashDataset) -> tuple[str, ...]:
    """Return the modalities that the model hashes, all of which the dataset must have.

    Raises:
        UserError: the dataset lacks one.
    """
    wanted = config.model.entry.target.modalities or dataset.modalities
    missing = [modality for modality in wanted if modality not in dataset.modalities]
    if missing:
        raise UserError(
            f"Model '{config.model.name}' needs {' and '.join(wanted)}, but dataset "
            f"'{dataset.name}' has no {missing[0]}; choose another method or dataset."
        )
    return wanted


def _split(config: RunConfig, dataset: HashDataset) -> SplitManifest:
    if config.eval.select != "val":
        return dataset.split
    size = config.eval.val_size
    rows = round(size * len(dataset.split.train)) if isinstance(size, float) else size
    if len(dataset.split.val) or config.runner.name == "fit":
        return dataset.split
    if rows < 1:
        raise UserError(
            f"eval.val_size={size} gives no validation row; give more, or eval.select=last to "
            "train on all rows without selection."
        )
    return dataset.split.with_val(rows, config.dataset.config.split.seed)


def _with_painted(split: SplitManifest, others: dict[str, OtherSource]) -> SplitManifest:
    """Return the split with painted pictures as further training rows, if the model reads them."""
    if TGI not in others:
        return split
    rows = others[TGI].inputs.rows
    return dataclasses.replace(
        split,
        train=np.concatenate([split.train, rows]),
        rule=f"{split.rule}; train: and {len(rows)} painted pictures of unseen classes",
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


def _sources(
    config: RunConfig, dataset: HashDataset, backbone: Backbone, device: torch.device
) -> tuple[dict[str, dict[str, Any]], dict[str, OtherSource], np.ndarray, Backbone]:
    """Return what views read: cached features where they are exact, else pictures and tokens.

    Beside it: the same for further inputs by name, rows with a broken picture, and the encoder, or
    what stands in for it.
    """
    model, data = config.model.entry.target, config.data
    frozen = not any(parameter.requires_grad for parameter in backbone.parameters())
    use_cache = data.feature_cache == "auto" and frozen and data.augment == "none"
    geometries = _geometries(config, backbone)
    sources: dict[str, dict[str, Any]] = {"train": {}, "eval": {}}
    bad_rows = np.empty(0, np.int64)
    if "image" in backbone.modalities:
        if use_cache:
            bad_rows = _cached_images(config, dataset, backbone, geometries, sources, device)
        else:
            bad_rows = _raw_images(config, dataset, backbone, geometries, sources)
    if "text" in backbone.modalities and dataset.texts is not None:
        captions, offsets = flatten_captions(dataset.texts)
        if use_cache:
            bank = features.text_features(
                backbone, captions, tokens=model.uses_tokens,
                batch_size=data.eval_batch_size, device=device,
            )  # fmt: skip
            found: dict[str, Any] = {"text_features": bank.features}
        else:
            found = {"tokens": backbone.tokenize(captions)}
        for source in sources.values():
            source.update(found, caption_offsets=offsets)
    others = {
        name: other_source(
            inputs, backbone, geometries.get("eval"), data,
            cache=use_cache, tokens=model.uses_tokens, device=device,
        )
        for name, inputs in chosen_inputs(dataset, model.others_of(config.model.config)).items()
    }  # fmt: skip
    if use_cache:
        banks = {m: sources["train"].get(f"{m}_features") for m in backbone.modalities}
        backbone = CachedBackbone(
            backbone.widths, backbone.token_widths, backbone.fingerprint,
            {m: b.tokens.shape[1] for m, b in banks.items() if b and b.tokens is not None},
        )  # fmt: skip
    return sources, others, bad_rows, backbone


def _geometries(config: RunConfig, backbone: Backbone) -> dict[str, Geometry]:
    if backbone.image_input is None:
        return {}
    size, data = backbone.image_input.size, config.data
    return {
        "train": Geometry(data.train_geometry, size), "eval": Geometry(data.eval_geometry, size),
    }  # fmt: skip


def _cached_images(
    config: RunConfig, dataset: HashDataset, backbone: Backbone, geometries: dict[str, Geometry],
    sources: dict[str, dict[str, Any]], device: torch.device,
) -> np.ndarray:  # fmt: skip
    bad = np.empty(0, np.int64)
    for use, geometry in geometries.items():
        bank = features.image_features(
            backbone, dataset.images, geometry, tokens=config.model.entry.target.uses_tokens,
            on_bad_image=config.data.on_bad_image, batch_size=config.data.eval_batch_size,
            device=device,
        )  # fmt: skip
        sources[use]["image_features"] = bank.features
        bad = np.union1d(bad, bank.bad_rows)
    return bad


def _raw_images(
    config: RunConfig, dataset: HashDataset, backbone: Backbone, geometries: dict[str, Geometry],
    sources: dict[str, dict[str, Any]],
) -> np.ndarray:  # fmt: skip
    distinct = tuple(dict.fromkeys(geometries.values()))
    stacked = sources_of(dataset.images)
    caches = [ImageCache.open(part, distinct, config.data.on_bad_image) for part in stacked]
    for use, geometry in geometries.items():
        images = stack([cache.array(geometry) for cache in caches])
        sources[use].update(images=images, image_input=backbone.image_input)
    starts = np.cumsum([0, *(len(part) for part in stacked)])
    return np.concatenate([c.bad_rows + s for c, s in zip(caches, starts, strict=False)])
