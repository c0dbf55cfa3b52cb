"""Datasets and encoders by configuration, kept in memory for the next run of a sweep."""

from __future__ import annotations

import torch

from common.config.run_config import RunConfig
from common.devices import find_device
from common.seeding import seed_everything
from dataset.auxiliary.captions import with_generated
from dataset.base import HashDataset
from dataset.images import look_again
from dataset.row_features import RowFeatures
from models.backbones.base import CachedBackbone
from models.backbones.build import build_entry
from models.backbones.towers import freeze_tower
from models.backbones.weights import RANDOM, state_fingerprint
from models.base import Backbone, InputRequest
from runners.inputs.image_operations import check
from utils.errors import UserError

_datasets: dict[str, HashDataset] = {}
_backbones: dict[str, Backbone] = {}


def choose_device(config: RunConfig, device: torch.device | str | None = None) -> torch.device:
    """Return the configured device; ``auto`` takes a GPU where there is one."""
    name = str(device or getattr(config.runner.config, "device", "auto"))
    return find_device(name, "runner.device=")


def load_dataset(config: RunConfig) -> HashDataset:
    """Return the dataset, kept in memory for the next run of a sweep that uses the same one.

    The pictures of one from memory are compared with their files anew, by ``stat``.
    """
    key = repr((config.dataset_name, config.resolved["dataset"]))
    if key in _datasets:
        look_again(_datasets[key].images)
    else:
        _datasets.clear()
        _datasets[key] = config.dataset.entry.target(config.dataset.config, config.dataset_name)
    return _datasets[key]


def add_generated(config: RunConfig, dataset: HashDataset) -> HashDataset:
    """Return the dataset with the captions, images and rows of ``data.generated``, if it is set."""
    folder = config.data.generated
    if folder is None:
        return dataset
    if dataset.features is not None:
        raise UserError(
            f"data.generated={folder} holds pictures and captions, and dataset '{dataset.name}' "
            "features, which no encoder reads; leave one of them out."
        )
    return with_generated(dataset, folder)


def load_backbone(config: RunConfig, modalities: tuple[str, ...]) -> Backbone:
    """Return the encoder; a frozen one is kept in memory for the next run that uses the same.

    Untrained weights are those of the run's seed, whatever was done or kept before.
    """
    is_random = getattr(config.backbone.config, "weights", None) == RANDOM
    key = repr((config.resolved["backbone"], modalities, config.seed if is_random else None))
    if key in _backbones:
        return _backbones[key]
    seed_everything(config.seed)
    backbone = build_entry(config.backbone.entry, config.backbone.config, modalities)
    if not backbone.fingerprint:  # a plugin's
        settings = {"class": type(backbone).__qualname__, "settings": config.resolved["backbone"]}
        backbone.fingerprint = state_fingerprint(backbone, settings)
    if not any(parameter.requires_grad for parameter in backbone.parameters()):
        _backbones.clear()
        _backbones[key] = backbone
    return backbone


def input_request(config: RunConfig, dataset: HashDataset) -> InputRequest:
    """Return what the configured model reads of the dataset.

    Raises:
        UserError: the dataset lacks a modality that the model hashes.
    """
    model = config.model.entry.target
    modalities = model.modalities or dataset.modalities
    missing = [modality for modality in modalities if modality not in dataset.modalities]
    if missing:
        raise UserError(
            f"Model '{config.model.name}' needs {' and '.join(modalities)}, but dataset "
            f"'{dataset.name}' has no {missing[0]}; choose another method or dataset."
        )
    return model.input_request(config.model.config, modalities)


def given_features(
    config: RunConfig, features: RowFeatures, request: InputRequest
) -> CachedBackbone:
    """Return what stands in for the encoder of features that a dataset brings.

    Raises:
        UserError: the encoder that the user states would be trained, or the model reads token
            features that are not there.
    """
    stated = config.resolved["backbone"].get("config", config.backbone.name)
    if getattr(config.backbone.config, "freeze", "all") != "all":
        raise UserError(
            f"backbone={stated} would be fine-tuned, but features are fixed; give "
            "backbone.freeze=all where it has computed them, or backbone=features."
        )
    if check(config.data)[0].is_random:
        raise UserError(
            f"data.train_image={config.data.train_image} changes pictures by chance, but features "
            "are fixed; leave it out, or state what was done before they were computed."
        )
    parts = {modality: features.arrays[modality] for modality in request.towers}
    for modality, (_, tokens, _) in parts.items():
        if request.tokens and tokens is None:
            raise UserError(
                f"Model '{config.model.name}' reads token features, which the file of features "
                f"lacks: add '{modality}_tokens' [N,L,D] (`main.py features --tokens` writes them) "
                "or choose another method."
            )
    shapes = {m: part.tokens.shape for m, part in parts.items() if part.tokens is not None}
    widths = {m: part.pooled.shape[1] for m, part in parts.items()}
    return CachedBackbone(
        widths, widths | {m: shape[2] for m, shape in shapes.items()}, features.fingerprint,
        {m: shape[1] for m, shape in shapes.items()},
    )  # fmt: skip


def load_encoder(config: RunConfig, request: InputRequest) -> Backbone:
    """Return the encoder with the towers that the model requests, and frozen as it requests."""
    backbone = load_backbone(config, request.towers)
    for modality in request.frozen:
        freeze_tower(backbone, modality)
    return backbone
