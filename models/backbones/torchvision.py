"""Picture networks of torchvision without their last, classifying layer.

AlexNet and VGG thus give the 4,096 values of their second hidden layer (fc7), as in the papers on
deep hashing; ResNets give the mean over the last map, ViTs the class token.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from common.batch import Features
from common.registry import BACKBONES
from models.backbones import weights as files
from models.backbones.base import Backbone, ImageInput
from models.backbones.towers import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PictureNetwork,
    image_settings,
    map_to_tokens,
)
from utils.errors import UserError

HEADS = ("fc", "heads.head", "classifier")
MAPS = ("layer4", "encoder", "features")
EVALUATED: dict[str, tuple[type[nn.Module], ...]] = {
    "eval": (nn.modules.batchnorm._BatchNorm,), "off": (nn.modules.dropout._DropoutNd,),
    "train": (), "model": (),
}  # fmt: skip
"""Value of ``batch_norm`` or ``dropout`` → layers that are always in evaluation mode."""


@dataclasses.dataclass(frozen=True)
class TorchvisionConfig:
    """Which network of torchvision, its weights and its pictures.

    Attributes:
        model: torchvision's name, e.g. ``alexnet``, ``resnet50``, ``vgg16``, ``vit_b_16``.
        weights: a file, a name such as ``IMAGENET1K_V1``, or ``random``; null is refused.
        freeze: ``all`` (or ``image``) keeps the network as it is, batch-norm statistics included.
        batch_norm: ``eval``: its batch norms use their running statistics in training too, scale
            and shift are trained all the same; as PIXEL and FIRe have it.
        dropout: ``off``: none in training either, as FIRe trains AlexNet.
        image_size: side in pixels; null takes the model's.
        image_mean, image_std: three numbers each; null takes ImageNet's.
    """

    model: str = "resnet50"
    weights: str | None = None
    freeze: Literal["none", "image", "all"] = "none"
    batch_norm: Literal["train", "eval"] = "train"
    dropout: Literal["model", "off"] = "model"
    image_size: int | None = None
    image_mean: tuple[float, ...] | None = None
    image_std: tuple[float, ...] | None = None


class TorchvisionBackbone(PictureNetwork):
    """A classification network of torchvision with its last layer removed."""

    _in_evaluation: tuple[type[nn.Module], ...] = ()  # freezing, at the start, asks for it

    def __init__(
        self, network: nn.Module, config: TorchvisionConfig, image_input: ImageInput
    ) -> None:
        super().__init__(network, "torchvision", config, image_input)
        self._in_evaluation = (*EVALUATED[config.batch_norm], *EVALUATED[config.dropout])
        self.widths = {"image": _remove_classifier(network)}
        self._map_name = next(name for name in MAPS if hasattr(network, name))
        self.token_widths = {"image": _map_width(network, self._map_name)}

    def train(self, mode: bool = True) -> TorchvisionBackbone:
        """Switch to training or evaluation; layers that the config excepts stay in evaluation."""
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, self._in_evaluation):
                layer.eval()
        return self

    def encode_image(self, image: Tensor, tokens: bool = False) -> Features:
        """Encode pictures [B,3,H,W] to pooled [B,D] and, on request, tokens [B,L,W]."""
        network: Any = self.visual
        if not tokens:
            return Features(network(image))
        maps: list[Tensor] = []
        layer = network.get_submodule(self._map_name)
        handle = layer.register_forward_hook(lambda _module, _input, out: maps.append(out))
        try:
            pooled = network(image)  # [B,D]
        finally:
            handle.remove()
        if maps[0].dim() == 3:
            return Features(pooled, maps[0][:, 1:])  # a ViT's patches, without the class token
        return Features(pooled, map_to_tokens(maps[0]))


def _classifier(network: nn.Module) -> tuple[str, nn.Linear]:
    """Return the last linear layer of the head, and its name."""
    for name in HEADS:
        try:
            head = network.get_submodule(name)
        except AttributeError:
            continue
        linear = [(n, m) for n, m in head.named_modules() if isinstance(m, nn.Linear)]
        if linear:
            inner, layer = linear[-1]
            return f"{name}.{inner}".rstrip("."), layer
    raise UserError(
        f"torchvision's {type(network).__name__} has no head of a kind known here "
        f"({', '.join(HEADS)}); use backbone=timm for it."
    )


def _remove_classifier(network: nn.Module) -> int:
    """Replace the last linear layer by the identity and return how many values entered it."""
    name, layer = _classifier(network)
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, nn.Identity())
    return layer.in_features


def _map_width(network: nn.Module, name: str) -> int:
    """Return the channels of the last map: what its last convolution or batch norm gives."""
    if name == "encoder":
        return int(network.hidden_dim)  # type: ignore[arg-type]
    widths = [
        layer.out_channels if isinstance(layer, nn.Conv2d) else layer.num_features
        for layer in network.get_submodule(name).modules()
        if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d))
    ]
    return widths[-1]


@BACKBONES.register("torchvision", config=TorchvisionConfig)
def torchvision_backbone(config: TorchvisionConfig, modalities: tuple[str, ...]) -> Backbone:
    """AlexNet, VGG, ResNet, ViT and other picture networks of torchvision.

    Raises:
        UserError: unknown network or one without a usable head, absent or unfitting weights.
    """
    import torchvision

    models = torchvision.models
    what = f"Backbone torchvision ({config.model})"
    known = models.list_models(module=models)
    if config.model not in known:
        raise files.unknown_model("torchvision", config.model, known)
    published = published_weights(config)
    if config.weights is None:
        raise files.needs_weights(what, published, "backbone.weights is not set")
    default = models.get_model_weights(config.model).DEFAULT
    crop = getattr(default.transforms(), "crop_size", [224])[0]
    size = config.image_size or crop
    options = {"image_size": size} if config.model.startswith("vit_") else {}
    network = models.get_model(config.model, weights=None, **options)
    if not any(hasattr(network, name) for name in MAPS) or "swin" in config.model:
        raise UserError(f"backbone.model={config.model} is not supported here; use backbone=timm.")
    _load(network, config, published, what)
    image_input = image_settings(size, IMAGENET_MEAN, IMAGENET_STD, config)
    return TorchvisionBackbone(network, config, image_input)


def published_weights(config: TorchvisionConfig) -> files.Published:
    """Return torchvision's file for ``config.weights``; for a file, or none, the oldest one's.

    Raises:
        UserError: ``config.weights`` is a name that torchvision has not for this network.
    """
    import torchvision

    entries = torchvision.models.get_model_weights(config.model)
    weights, names = config.weights, [entry.name for entry in entries]
    if weights is None or weights == files.RANDOM or files.looks_like_file(weights):
        chosen, others = next(iter(entries)), list(entries)  # V1; a file may be any of them
    elif weights in (*names, "DEFAULT"):
        chosen, others = entries[weights] if weights in names else entries.DEFAULT, []
    else:
        raise UserError(
            f"backbone.weights='{weights}' is neither a file nor a name of torchvision for "
            f"{config.model}; names: {', '.join(names)}."
        )
    file = files.Published.at(chosen.url, Path(torch.hub.get_dir()) / "checkpoints")
    hashes = files.hashes_in([chosen.url, *(entry.url for entry in others)])
    return dataclasses.replace(file, hashes=hashes)


def _load(
    network: nn.Module, config: TorchvisionConfig, published: files.Published, what: str
) -> None:
    weights = str(config.weights)
    if weights == files.RANDOM:
        files.warn_random(what)
        return
    named = not files.looks_like_file(weights)
    file = files.url_file(what, published) if named else weights
    state, _ = files.load_state(file, what, published)
    head, _ = _classifier(network)
    state = {name: value for name, value in state.items() if not name.startswith(f"{head}.")}
    files.load_into(network, state, what, weights, optional=f"{head}.")
