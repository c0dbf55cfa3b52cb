"""The model of image-hashing papers: a CNN or ViT with one linear hash layer at its end.

u = W x + b on the pooled features x; the code is sign(u). Squashing (tanh) is left to the loss, as
in the released code of CSQ, HashNet, DPN and most of their kind. ``init: small`` is the layer that
DeepHash-pytorch puts behind a ResNet, ``bias: false`` cisip-FIRe's.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from torch import nn

from common.registry import MODELS
from models.layers.heads import StandardizedHeadModel, small_linear
from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class StandardizeConfig:
    """Keys of ``model`` with ``name: orthohash`` or ``shc``."""

    standardize: bool = False  # standardise the features first; for frozen encoders


@dataclasses.dataclass(frozen=True)
class ImageHashConfig(StandardizeConfig):
    """Keys of ``model`` with ``name: image_hash``."""

    bias: bool = True  # of the hash layer; cisip-FIRe's has none
    init: Literal["default", "small"] = "default"  # small: N(0, 0.01²), bias 0

    def __post_init__(self) -> None:
        if self.init == "small" and not self.bias:
            raise UserError(
                "model.init=small starts the bias at 0 and needs one; give model.bias=true or "
                "model.init=default."
            )


@MODELS.register("image_hash", config=ImageHashConfig, provides=("image_code",))
class ImageHash(StandardizedHeadModel):
    """Backbone and one linear hash layer, for image hashing."""

    modalities = ("image",)
    config: ImageHashConfig

    def build_head(self, width: int) -> nn.Module:
        """Return ``Linear(width, K)`` as PyTorch initialises it, or with small weights."""
        if self.config.init == "small":
            return small_linear(width, self.problem.bits)
        return nn.Linear(width, self.problem.bits, bias=self.config.bias)
