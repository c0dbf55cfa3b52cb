"""The full token sequence of a row, for heads on tokens without a mask (DIMCH, UMoED)."""

from __future__ import annotations

import torch
from torch import Tensor

from models.base import Backbone, Batch
from utils.errors import UserError


def token_sequence(backbone: Backbone, batch: Batch, modality: str) -> Tensor:
    """Return the token features of each row; those of a picture start with its pooled feature.

    The pooled feature of a vision transformer is its class token, which is not among the tokens:
    with 49 patches it makes the 50 tokens of ViT-B/32. That of a text is among them already.
    It is left out where its width differs. Hidden tokens (padding, EOS) stay.

    Returns:
        [B,L,D] for B rows, L as :func:`token_count` says and D the encoder's token width.

    Raises:
        UserError: the encoder has no token features of this modality.
    """
    features = backbone(batch, modality, tokens=True)
    if features.tokens is None:
        raise UserError(
            f"The encoder gives no token features of the {modality}, and this model reads them; "
            "choose another backbone, e.g. backbone=clip_vit_b32."
        )
    if not _starts_with_pooled(backbone, modality):
        return features.tokens
    return torch.cat([features.pooled[:, None], features.tokens], 1)


def token_count(backbone: Backbone, modality: str) -> int:
    """Return L, the number of tokens that :func:`token_sequence` gives for every row.

    Raises:
        UserError: the encoder does not state it.
    """
    count = getattr(backbone, "token_counts", {}).get(modality)
    if count is None:
        raise UserError(
            f"The encoder does not tell how many {modality} tokens it gives, and this model has a "
            "layer of that size; choose another backbone, e.g. backbone=clip_vit_b32."
        )
    return count + _starts_with_pooled(backbone, modality)


def _starts_with_pooled(backbone: Backbone, modality: str) -> bool:
    return modality == "image" and backbone.widths["image"] == backbone.token_widths["image"]
