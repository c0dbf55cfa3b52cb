"""The recipe of a run, key by key, from its resolved configuration alone."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.config import schema
from common.config.run_config import RunConfig
from dataset.operation_lists import DEFAULT
from models.backbones.towers import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from runners.recipes.measure import describe_measure
from runners.recipes.rows import describe_rows
from runners.recipes.texts import describe_texts

CLIP = {"mean": list(CLIP_MEAN), "std": list(CLIP_STD)}
IMAGENET = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
_NORMALISATION = {"open_clip": CLIP, "blip": CLIP, "torchvision": IMAGENET}
_COLOUR = {
    "release": "RGB by PIL, no EXIF rotation",
    "as_seen": "RGB as seen: scaled by type to 8 bits, alpha on white, EXIF rotation",
}
_NOT_RECIPE = ("checkpoint_every", "tensorboard", "pictures", "device", "threads", "name")
"""Keys of ``runner`` that do not change what is computed, and its name."""


def describe(config: RunConfig) -> dict[str, Any]:
    """Return the recipe of a run: key → value, nested as the keys are.

    Keys and words are those of the field's releases: ``encoder``, ``train_image``, ``rows``,
    ``selection``, ``evaluation`` … The method's own part is its settings, under ``model``,
    ``loss``, ``optim`` and ``runner``.
    """
    runner = config.resolved["runner"]
    return {
        **_encoder(config),
        **_images(config),
        **describe_texts(config),
        **describe_rows(config),
        "method": config.method,
        "batch_size": runner.get("batch_size"),
        "drop_last": runner.get("drop_last", False),
        "epochs": runner.get("epochs"),
        "gradient_accumulation": runner.get("accumulate", 1),
        "model": config.resolved["model"],
        "loss": config.resolved["loss"],
        "optim": config.resolved["optim"].get("groups", {}),
        "runner": {
            key: value
            for key, value in runner.items()
            if key not in (*_NOT_RECIPE, "batch_size", "drop_last", "epochs", "accumulate")
        },
        **describe_measure(config),
    }


def flat_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe with dotted keys: ``{"rows": {"query": 5}}`` has ``rows.query``."""
    return schema.flat(recipe)


def differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], unknown: tuple[str, ...] = ()
) -> dict[str, tuple[Any, Any]]:
    """Return the keys in which two recipes differ, with both values; a missing key is None.

    Keys in ``unknown``, or below one, are compared with nothing.
    """
    left, right = flat_recipe(ours), flat_recipe(theirs)
    return {
        key: (left.get(key), right.get(key))
        for key in dict.fromkeys([*right, *left])
        if left.get(key) != right.get(key) and not _below(key, unknown)
    }


def _below(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _encoder(config: RunConfig) -> dict[str, Any]:
    backbone: Any = config.backbone.config
    freeze = getattr(backbone, "freeze", "all")
    norms, dropout = "absent", "absent"
    if config.backbone.name == "torchvision":
        layers = _layers(backbone.model)
        if getattr(backbone, "batch_norm", "train") == "eval":
            norms = "eval (affine parameters trained)"
            if not layers.batch_norm:
                norms = "absent (a ResNet's stay in evaluation mode)"
        elif layers.batch_norm:
            norms = "trained"
        if layers.dropout:
            dropout = layers.dropout
            if getattr(backbone, "dropout", "model") == "off":
                dropout = "switched off in training too"
    elif config.backbone.name == "blip":
        dropout = "as BLIP's file"
    precision = config.resolved["runner"].get("precision", "fp32")
    return {
        "encoder": encoder_name(config),
        "encoder_trained": {"none": "all", "all": "none"}.get(freeze, f"all but {freeze}"),
        "precision": {"fp32": "float32"}.get(precision, f"mixed ({precision})"),
        "encoder_batch_norm": norms,
        "encoder_dropout": dropout,
    }


def encoder_name(config: RunConfig) -> str:
    """Return the encoder with its weights, as ``openai/ViT-B-32``.

    A file counts as the published weights whose file name it has.
    """
    backbone: Any = config.backbone.config
    name, model = config.backbone.name, getattr(backbone, "model", "")
    weights = str(getattr(backbone, "weights", ""))
    if name == "open_clip":
        official = weights in ("openai", "random") or Path(weights).name == "ViT-B-32.pt"
        who = "random" if weights == "random" else "openai" if official else weights
        return f"{who}/{Path(model).stem.removesuffix('-quickgelu')}"
    if name == "torchvision":
        return f"torchvision/{model} {_published_name(model, weights)}"
    if name == "blip" and Path(weights).name == "BLIP_base.pth":
        return f"{Path(weights).name} (ViT-B/16, loaded through the image-text matching model)"
    return " ".join(word for word in (name, model, weights) if word)


def _published_name(model: str, weights: str) -> str:
    """Return torchvision's name of a file that has the name of published weights."""
    import torchvision

    for entry in torchvision.models.get_model_weights(model):
        if Path(entry.url).name == Path(weights).name:
            return str(entry.name)
    return weights


@dataclasses.dataclass(frozen=True)
class _Layers:
    batch_norm: bool
    dropout: str


@functools.cache
def _layers(model: str) -> _Layers:
    """Return what a network of torchvision has of batch norms and dropout; it is not allocated."""
    import torch
    import torchvision
    from torch import nn

    with torch.device("meta"):
        layers = list(torchvision.models.get_model(model, weights=None).modules())
    norms = any(isinstance(layer, nn.BatchNorm2d) for layer in layers)
    shares = []
    for layer, behind in zip(layers, layers[1:], strict=False):
        if isinstance(layer, nn.Dropout) and layer.p > 0:
            width = getattr(behind, "out_features", None)
            shares.append((layer.p, width))
    words = ""
    if shares:
        share, width = shares[0]
        words = f"{share:g} before each of the two {width} layers, active in training"
    if len(shares) not in (0, 2) or len(set(shares)) > 1:
        words = "active in training: " + ", ".join(f"{p:g}" for p, _ in shares)
    return _Layers(norms, words)


def _images(config: RunConfig) -> dict[str, Any]:
    backbone: Any = config.backbone.config
    normalisation: dict[str, Any] = dict(_NORMALISATION.get(config.backbone.name, {}))
    for key, name in (("mean", "image_mean"), ("std", "image_std")):
        if (values := getattr(backbone, name, None)) is not None:
            normalisation[key] = list(values)
    data: Any = config.data
    files = config.dataset.name.startswith("cifar")
    colour = _COLOUR[getattr(config.dataset.config, "colour", None) or "release"]
    return {
        "train_image": data.train_image or list(DEFAULT),
        "eval_image": data.eval_image or list(DEFAULT),
        "colour": "pixels of the CIFAR files" if files else colour,
        "normalisation": normalisation,
    }
