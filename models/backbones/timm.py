"""Any picture network of timm, without its classification head.

Weights are a file, or ``pretrained`` (timm's default ones) or a tag of timm (``augreg_in21k``).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from common.batch import Features
from common.registry import BACKBONES
from models.backbones import weights as files
from models.backbones.base import Backbone, ImageInput
from models.backbones.open_clip_towers import timm_tokens
from models.backbones.towers import IMAGENET_MEAN, IMAGENET_STD, PictureNetwork, image_settings
from utils.errors import UserError

PRETRAINED = "pretrained"


@dataclasses.dataclass(frozen=True)
class TimmConfig:
    """Which network of timm, its weights and its pictures.

    Attributes:
        model: timm's name, e.g. ``resnet50`` or ``vit_base_patch16_224``.
        weights: a file, ``pretrained`` (or true), a tag of timm for this network, or ``random``;
            null is refused.
        freeze: ``all`` (or ``image``) keeps the network as it is, batch-norm statistics included.
        image_size: side in pixels; null takes the model's.
        image_mean, image_std: three numbers each; null takes the model's.
    """

    model: str = "resnet50"
    weights: str | bool | None = None
    freeze: Literal["none", "image", "all"] = "none"
    image_size: int | None = None
    image_mean: tuple[float, ...] | None = None
    image_std: tuple[float, ...] | None = None


class TimmBackbone(PictureNetwork):
    """A picture network of timm: pooled features before the classifier, tokens of the last map."""

    def __init__(self, network: Any, config: TimmConfig, image_input: ImageInput) -> None:
        """Wrap a network that was built with ``num_classes=0``."""
        super().__init__(network, "timm", config, image_input)
        self.widths = {"image": int(getattr(network, "head_hidden_size", network.num_features))}
        self.token_widths = {"image": int(network.num_features)}

    def encode_image(self, image: Tensor, tokens: bool = False) -> Features:
        """Encode pictures [B,3,H,W] to pooled [B,D] and, on request, tokens [B,L,W]."""
        network: Any = self.visual
        features = network.forward_features(image)
        pooled = network.forward_head(features, pre_logits=True)  # [B,D]
        return Features(pooled, timm_tokens(network, features) if tokens else None)


@BACKBONES.register("timm", config=TimmConfig)
def timm_backbone(config: TimmConfig, modalities: tuple[str, ...]) -> Backbone:
    """Any picture network of timm (ResNet, ViT, ConvNeXt, EfficientNet ...).

    Raises:
        UserError: unknown network, absent or unfitting weights.
    """
    import timm

    what = f"Backbone timm ({config.model})"
    if not timm.is_model(config.model):
        raise files.unknown_model("timm", config.model, timm.list_models())
    published = published_weights(config)
    if config.weights in (None, False):
        raise files.needs_weights(what, published, "backbone.weights is not set")
    options: dict[str, Any] = {}
    known = timm.get_pretrained_cfg(config.model)
    if config.image_size is not None and known and known.fixed_input_size:
        options["img_size"] = config.image_size  # parameters depend on the size of the picture
    if config.weights == files.RANDOM:
        files.warn_random(what)
        network = timm.create_model(config.model, num_classes=0, **options)
    elif isinstance(config.weights, str) and files.looks_like_file(config.weights):
        state, _ = files.load_state(config.weights, what, published)
        network = _with_state(config.model, state, what, config.weights, options)
    else:
        network = _from_tag(config, what, published, options)
    data = timm.data.resolve_model_data_config(network)
    image_input = image_settings(
        config.image_size or data["input_size"][-1],
        data.get("mean") or IMAGENET_MEAN,
        data.get("std") or IMAGENET_STD,
        config,
    )
    return TimmBackbone(network, config, image_input)


def _with_state(
    name: str, state: dict[str, Tensor], what: str, source: str, options: dict[str, Any]
) -> Any:
    """Return the network with exactly these weights, its classifier removed.

    timm by itself tolerates missing weights once the number of classes is changed; here every
    weight has to be present. Its conversions (older names, positions for another picture size) are
    used where names or shapes differ, on the whole network, for which it is strict.
    """
    import timm

    network: Any = timm.create_model(name, num_classes=0, **options)
    heads = network.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    dropped = tuple(f"{head}.{leaf}" for head in heads for leaf in ("weight", "bias"))
    remaining = {key: value for key, value in state.items() if key not in dropped}
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    if shapes == {key: value.shape for key, value in remaining.items()}:
        files.load_into(network, remaining, what, source)
        return network
    overlay = {"state_dict": dict(state), "custom_load": False}
    try:
        full: Any = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=overlay, **options
        )
    except (RuntimeError, KeyError, AttributeError) as error:
        files.load_into(network, remaining, what, source)  # says which names do not fit
        raise UserError(f"'{source}' does not fit {what}: {str(error).splitlines()[0]}") from error
    full.reset_classifier(0)
    return full


def published_weights(config: TimmConfig) -> files.Published:
    """Return what timm's weights of ``config.weights`` are, or its default ones.

    Raises:
        UserError: ``config.weights`` is a tag that timm has not for this network.
    """
    known = _known(config)
    if known is None or not known.hf_hub_id:
        url = str(known.url or "") if known is not None else ""
        if url:
            return files.Published.at(url, Path(torch.hub.get_dir()) / "checkpoints")
        return files.Published(f"weights of timm's '{config.model}'", "timm knows none")
    name = known.hf_hub_filename or "model.safetensors"
    return files.Published(name, f"huggingface.co/{known.hf_hub_id}")


def _known(config: TimmConfig) -> Any:
    """Return timm's description of the weights of ``config``, or None."""
    import timm

    name, base, weights = config.model, config.model.split(".")[0], config.weights
    by_tag = isinstance(weights, str) and weights not in (PRETRAINED, files.RANDOM)
    if by_tag and not files.looks_like_file(str(weights)):
        name = f"{base}.{weights}"
        if not timm.models.is_model_pretrained(name):
            tags = [tag.split(".", 1)[-1] for tag in timm.list_pretrained(f"{base}.*")]
            raise UserError(
                f"backbone.weights='{weights}' is neither a file nor a tag of timm for "
                f"{base}; tags: {', '.join([PRETRAINED, *tags])}."
            )
    return timm.get_pretrained_cfg(name)


def _from_tag(
    config: TimmConfig, what: str, published: files.Published, options: dict[str, Any]
) -> Any:
    """Load weights that timm knows by name: cached, or downloaded."""
    import timm

    known = _known(config)
    by_tag = config.weights not in (True, PRETRAINED)
    name = f"{config.model.split('.')[0]}.{config.weights}" if by_tag else config.model
    if known is not None and known.hf_hub_id:
        names = (known.hf_hub_filename or "model.safetensors", "pytorch_model.bin")
        file = files.hub_file(known.hf_hub_id, names)
        if file:
            state, _ = files.load_state(file, what, published)
            return _with_state(name, state, what, file, options)
    if known is not None and known.url and files.reachable(str(known.url)):
        with files.library_errors(what, published):
            return timm.create_model(name, pretrained=True, num_classes=0, **options)
    raise files.needs_weights(what, published, files.not_in_hub())
