"""Datasets and encoders by configuration, kept in memory for the next run of a sweep."""

from __future__ import annotations

import torch

from common.config.run_config import RunConfig
from common.devices import find_device
from common.seeding import seed_everything
from dataset.auxiliary.captions import with_generated
from dataset.base import HashDataset
from dataset.images import look_again
from models.backbones.build import build_entry
from models.backbones.towers import freeze_tower
from models.backbones.weights import RANDOM, state_fingerprint
from models.base import Backbone, InputRequest
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
    return dataset if folder is None else with_generated(dataset, folder)


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


def load_encoder(config: RunConfig, request: InputRequest) -> Backbone:
    """Return the encoder with the towers that the model requests, and frozen as it requests."""
    backbone = load_backbone(config, request.towers)
    for modality in request.frozen:
        freeze_tower(backbone, modality)
    return backbone
