"""Hash heads on token features: tokens are gathered into one vector per bit, a "concept".

Two granularities make a code. The pooled feature gives K concept activations at once
(:class:`ConceptEncoder`, "GCL" in MITH). The tokens of a row are summed into K concept vectors
(:func:`gather_concepts`, "LTA"), a transformer relates these to each other, and each gives one bit
(:class:`ConceptTransformer`, "LCT"). :class:`ConceptHead` is the whole; MITH and VTPH use it.

B rows, L tokens, K bits (one concept each), D features. Everything is batch first.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.batch import Features
from models.backbones.clip_attention import SelfAttention, quick_gelu
from models.base import Backbone
from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class ConceptHeadConfig:
    """Keys of ``model`` for methods with a :class:`ConceptHead`."""

    top_k: int = 8  # concepts that a token may contribute to
    mlp_layers: int = 2  # residual blocks of the concept encoder
    transformer_layers: int = 2  # between the concepts of a row
    attention_heads: int | None = None  # None: one per 64 features

    def __post_init__(self) -> None:
        for key in ("top_k", "mlp_layers", "transformer_layers", "attention_heads"):
            value, least = getattr(self, key), 1 if key in ("top_k", "attention_heads") else 0
            if value is not None and value < least:
                raise UserError(f"model.{key}={value} has to be at least {least}.")


class ConceptFeatures(NamedTuple):
    """Output of a :class:`ConceptHead` for B rows of one modality.

    Attributes:
        pooled: [B,D] the refined pooled feature, not normalised.
        pooled_code: [B,K] its concept activations in (-1,1).
        concepts: [B,K,D] concept vectors after the transformer.
        token_code: [B,K] one bit from each of them, in (-1,1).
    """

    pooled: Tensor
    pooled_code: Tensor
    concepts: Tensor
    token_code: Tensor


class ConceptHead(nn.Module):
    """One concept encoder for all modalities and a concept transformer for each."""

    def __init__(
        self, width: int, bits: int, modalities: tuple[str, ...], config: ConceptHeadConfig
    ) -> None:
        super().__init__()
        heads = config.attention_heads or default_heads(width)
        self.top_k = config.top_k
        self.encoder = ConceptEncoder(width, bits, config.mlp_layers)
        self.transformers = nn.ModuleDict(
            {
                m: ConceptTransformer(width, bits, config.transformer_layers, heads)
                for m in modalities
            }
        )

    def forward(self, features: Features, modality: str) -> ConceptFeatures:
        """Return codes and vectors of both granularities.

        Raises:
            UserError: the features hold no tokens.
        """
        if features.tokens is None:
            raise UserError(
                f"This method hashes token features, but the backbone gives none for {modality}; "
                "choose a backbone with tokens, such as clip_vit_b32."
            )
        pooled, pooled_code = self.encoder(features.pooled)
        weight = concept_weights(self.activations(features.tokens, features.mask), self.top_k)
        concepts, token_code = self.transformers[modality](gather_concepts(features.tokens, weight))
        return ConceptFeatures(pooled, pooled_code, concepts, token_code)

    @torch.no_grad()
    def activations(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return the concept activations of tokens [B,L,K], 0 where ``mask`` hides one.

        They only weight the tokens: there is no gradient.
        """
        if mask is None:
            return self.encoder(tokens)[1]
        visible = ~mask
        computed = self.encoder(tokens[visible])[1]  # not of padding
        activations = computed.new_zeros(*mask.shape, computed.shape[-1])
        activations[visible] = computed
        return activations


class ConceptEncoder(nn.Module):
    """Residual blocks ``x + W₂ gelu(W₁ LN(x))``, then concept activations ``tanh(W x)``."""

    def __init__(self, width: int, bits: int, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualMLP(width) for _ in range(layers))
        self.concept = nn.Linear(width, bits, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return refined features [...,D] and concept activations [...,K] of features [...,D]."""
        for block in self.blocks:
            x = block(x)
        return x, self.concept(x).tanh()


class ResidualMLP(nn.Module):
    """``x + W₂ gelu(W₁ LN(x))``, hidden width 4D, with the exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the refined features, of the shape of ``x`` [...,D]."""
        return x + self.fc2(F.gelu(self.fc1(self.norm(x))))


def concept_weights(activations: Tensor, top_k: int) -> Tensor:
    """Return the weight of each token in each concept, summing to 1 or 0 over the tokens.

    A token takes part in its ``top_k`` most active concepts (equal ones included) as far as they
    are positive; over the tokens that take part, softmax of the activations.

    Args:
        activations: [B,L,K] in (-1,1); a hidden token has 0 everywhere.
        top_k: concepts per token; all of them if K is smaller.

    Returns:
        [B,L,K]; a concept without any token has weight 0 everywhere.

    >>> concept_weights(torch.tensor([[[0.5, 0.2, -0.1], [0.5, 0.9, 0.0]]]), top_k=1)
    tensor([[[1., 0., 0.],
             [0., 1., 0.]]])
    """
    selected = activations > 0
    if top_k < activations.shape[-1]:
        selected &= activations >= activations.topk(top_k, sorted=False).values.amin(
            -1, keepdim=True
        )
    weight = activations.exp() * selected
    # every selected entry exceeds exp(0) = 1: a smaller sum is an empty one
    return weight / weight.sum(1, keepdim=True).clamp_min(1)


def gather_concepts(tokens: Tensor, weight: Tensor) -> Tensor:
    """Return the concept vectors [B,K,D]: sums of tokens [B,L,D] weighted by [B,L,K]."""
    return weight.to(tokens.dtype).mT @ tokens


def position_code(count: int, width: int) -> Tensor:
    """Return the sinusoidal code of ``count`` positions, float32 [count,width], scaled by 1/√width.

    Column 2i is sin(k · 10000^(-2i/D)), column 2i+1 its cosine, both divided by √D.
    """
    position = torch.arange(count, dtype=torch.float64)[:, None]
    column = torch.arange(0, width, 2, dtype=torch.float64)
    angle = position * 10000.0 ** (-column / width)  # [K,⌈D/2⌉]
    both = torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)[:, :width]
    return (both / math.sqrt(width)).float()


class ConceptTransformer(nn.Module):
    """A transformer over the concepts of a row; each concept then gives one bit."""

    position: Tensor

    def __init__(self, width: int, bits: int, layers: int, heads: int) -> None:
        super().__init__()
        # a constant: kept out of checkpoints
        self.register_buffer("position", position_code(bits, width), persistent=False)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(layers)))
        # separate tensors, not one [K,D]: BertAdam's clipping is per tensor
        self.bit_layers = nn.ModuleList(nn.Linear(width, 1) for _ in range(bits))

    def forward(self, concepts: Tensor) -> tuple[Tensor, Tensor]:
        """Return refined concepts [B,K,D] and their bits [B,K] in (-1,1)."""
        refined = self.blocks(concepts + self.position)
        weights, biases = zip(*(layer.parameters() for layer in self.bit_layers), strict=True)
        logits = torch.einsum("bkd,kd->bk", refined, torch.cat(weights))
        return refined, (logits + torch.cat(biases)).tanh()


class TransformerBlock(nn.Module):
    """CLIP's block: pre-norm self-attention and an MLP of 4D with QuickGELU, both residual.

    No mask, no dropout; initialised as PyTorch does by default.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise UserError(
                f"model.attention_heads={heads} does not divide the {width} features of a token."
            )
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens [B,L,D] after the block."""
        x = x + self.attention.attend(self.norm1(x))
        return x + self.fc2(quick_gelu(self.fc1(self.norm2(x))))


def default_heads(width: int) -> int:
    """Return the number of attention heads: one per 64 features if they divide, else fewer.

    >>> [default_heads(width) for width in (512, 64, 32, 200, 130)]
    [8, 1, 1, 2, 2]
    """
    return next(h for h in range(max(width // 64, 1), 0, -1) if width % h == 0)


def common_width(backbone: Backbone, method: str) -> int:
    """Return the one width D of pooled and token features of all modalities.

    Raises:
        UserError: they differ, so that one concept encoder cannot serve them all.
    """
    widths = {*backbone.widths.values(), *backbone.token_widths.values()}
    if len(widths) != 1:
        raise UserError(
            f"{method} passes pooled and token features of pictures and texts through one encoder, "
            f"but this backbone gives widths of {', '.join(map(str, sorted(widths)))}; choose one "
            "with a joint space, such as clip_vit_b32."
        )
    return widths.pop()
