"""The model of image-hashing papers: a CNN or ViT with one linear hash layer at its end.

u = W x + b on the pooled features x; the code is sign(u). Squashing (tanh) is left to the loss, as
in the released code of CSQ, HashNet, DPN and most of their kind.
"""

from __future__ import annotations

import dataclasses

from torch import nn

from common.registry import MODELS
from models.layers.heads import StandardizedHeadModel


@dataclasses.dataclass(frozen=True)
class ImageHashConfig:
    """Keys of ``model`` with ``name: image_hash``."""

    standardize: bool = False  # standardise the features first; for frozen encoders


@MODELS.register("image_hash", config=ImageHashConfig, provides=("image_code",))
class ImageHash(StandardizedHeadModel):
    """Backbone and one linear hash layer, for image hashing."""

    modalities = ("image",)

    def build_head(self, width: int) -> nn.Module:
        """Return ``Linear(width, K)`` in PyTorch's default initialisation."""
        return nn.Linear(width, self.problem.bits)
