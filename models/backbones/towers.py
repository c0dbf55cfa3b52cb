"""Common ground of the backbones here: towers that may be frozen, and picture settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from models.backbones.base import Backbone, ImageInput
from models.backbones.weights import RANDOM, state_fingerprint
from utils.errors import UserError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class TowerBackbone(Backbone):
    """A backbone made of an image tower ``visual`` and, or, a text tower ``text``.

    A frozen tower takes no gradient and stays in eval mode, whatever :meth:`train` is called with,
    so that its batch-norm statistics and dropout do not change either.

    Attributes:
        frozen: the modalities whose features never change during training (they may be cached).
    """

    visual: nn.Module | None
    text: nn.Module | None

    def __init__(
        self, visual: nn.Module | None, text: nn.Module | None, freeze: str = "none"
    ) -> None:
        super().__init__()
        self.visual = visual
        self.text = text
        self.frozen: tuple[str, ...] = ()
        for modality in ("image", "text"):
            if freeze in (modality, "all"):
                self.freeze(modality)

    def freeze(self, modality: str) -> None:
        """Freeze the tower of ``modality``, if there is one."""
        tower = self._tower(modality)
        if tower is None or modality in self.frozen:
            return
        tower.requires_grad_(False)
        tower.is_frozen = True  # type: ignore[assignment]  # checkpoints leave it out
        self.frozen = (*self.frozen, modality)
        self.train(self.training)

    def _tower(self, modality: str) -> nn.Module | None:
        return self.visual if modality == "image" else self.text

    def train(self, mode: bool = True) -> TowerBackbone:
        """Switch to training or evaluation; frozen towers stay in evaluation."""
        super().train(mode)
        for modality in self.frozen:
            self._tower(modality).eval()  # type: ignore[union-attr]
        return self


class PictureNetwork(TowerBackbone):
    """The network of a library of picture networks as the only tower, ``visual``."""

    def __init__(self, network: Any, library: str, config: Any, image_input: ImageInput) -> None:
        """Take the fingerprint of ``network`` as it is now."""
        super().__init__(network, None, config.freeze)
        self.image_input = image_input
        settings = {
            "backbone": library,
            "model": config.model,
            "image": dataclasses.asdict(image_input),
            "random": config.weights == RANDOM,
        }
        self.fingerprint = state_fingerprint(network, settings)


def freeze_tower(backbone: Backbone, modality: str) -> None:
    """Freeze one tower of an encoder that is, or need not be, trained.

    Raises:
        UserError: the encoder trains, but not tower by tower.
    """
    if isinstance(backbone, TowerBackbone):
        backbone.freeze(modality)
    elif any(parameter.requires_grad for parameter in backbone.parameters()):
        raise UserError(
            f"The {modality} tower of {type(backbone).__name__} cannot be frozen alone; give "
            "backbone.freeze=all, or another backbone."
        )


def drop_text(backbone: Backbone) -> None:
    """Remove the text tower, if there is one: the encoder then encodes images only."""
    if isinstance(backbone, TowerBackbone):
        backbone.text = None
        backbone.frozen = tuple(m for m in backbone.frozen if m != "text")


def image_settings(
    size: int, mean: Sequence[float], std: Sequence[float], config: Any
) -> ImageInput:
    """Return how pictures are prepared: by the model's mean and std unless the config gives others.

    Raises:
        UserError: an override that is not three numbers, or a std that is not positive.
    """
    values = {}
    for key, default in (("image_mean", mean), ("image_std", std)):
        override = getattr(config, key)
        chosen = tuple(float(x) for x in (default if override is None else override))
        if len(chosen) != 3 or (key == "image_std" and min(chosen) <= 0):
            raise UserError(
                f"backbone.{key}={list(chosen)} has to be three numbers, one per colour"
                f"{', all positive' if key == 'image_std' else ''}, e.g. [0.5, 0.5, 0.5]."
            )
        values[key] = chosen
    return ImageInput(int(size), values["image_mean"], values["image_std"])


def map_to_tokens(features: Tensor) -> Tensor:
    """Return a feature map [B,W,h,w] as tokens [B,h*w,W], row by row."""
    return features.flatten(2).transpose(1, 2)
