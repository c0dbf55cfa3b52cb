r"""UMoED: A Unified Generative Hashing for Cross-Modal Retrieval.

ACM Transactions on Multimedia Computing, Communications, and Applications 2025,
doi:10.1145/3744567.

A code consists of choices: M learned queries attend to the tokens of a row, and each chooses one of
V = 2^{K/M} words, whose number is K/M bits of the code (first bit first). One decoder serves both
modalities. Its N layers are transformer decoder layers (post-norm, no causal mask, dropout 0.3)
whose feed-forward part ends in a soft mixture of experts (:mod:`models.layers.soft_moe`)::

    x ← LN(x + SA(x))     x ← LN(x + CA(x, tokens))     x ← LN(x + moe(ReLU(W x)))
    E = W_c x ∈ ℝ^{M x V}          code = bits of arg max_v E_mv, m = 1..M

arg max has no gradient: codes are trained through the sharpened probabilities of the loss alone.
With e the rows of E of unit length, p = softmax(e / 0.3), and d_ab = 1 - (1/M) Σ_m <p_am, p_bm> the
distance of picture a and text b::

    L = (trip(d) + trip(dᵀ))/4 + 0.8 (div(e_image) + div(e_text))/3

trip is the weighted triplet loss (:mod:`models.losses.ranked_triplet`) with margin 0.1, div the
mean over rows of Σ_{m<m'} exp(-20 ‖e_m - e_m'‖²) / (M(M-1)/2), which keeps the queries apart.

``<modality>_code`` is real-valued here, so that every loss can be tried: for each bit, tanh(δ/2)
with δ the largest E among words with that bit 1 less the largest among those with it 0. Its sign is
always the bit of the arg max, also where two words tie: arg max takes the first. For V = 2 the code
is p₁ - p₀ of the softmax over both words.

Deviations from the released code
    * The divisors 4 and 3 are left over from a form with more terms; kept, so that weights mean the
      same.
    * Tokens and rows are distinguished by the order of the axes, as in
      :mod:`models.cross_modal.dimch`, and the pooled feature joins the picture's tokens only where
      it has their width. A text's padding is among its tokens, as released.
    * The decoder is as wide as the tokens. With ``model.hidden``, or where pictures and texts
      differ, a linear layer and ReLU make them so; the released one works for 512 alone.
    * Left out: the decoder without mixture of experts, separate decoders for the modalities (the
      released one sends texts through the pictures'), the triplet loss switched off (it fails).
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.pairwise import share_label
from common.registry import LOSSES, MODELS
from models.base import Backbone, Batch, HashLoss, HashModel, Outputs, Problem, Progress, Terms
from models.layers.soft_moe import SoftMoE
from models.layers.token_sequence import token_sequence
from models.losses.ranked_triplet import dcg_weight, ranked_triplet
from models.losses.set_regularizers import diversity
from models.losses.set_similarity import (
    bag_similarity,
    member_products,
    sequence_euclidean,
    sequence_similarity,
)
from utils.errors import UserError

GROUPS = (1, 2, 4, 8, 16)  # bits that one query may write


@dataclasses.dataclass(frozen=True)
class UMoEDModelConfig:
    """Keys of ``model`` with ``name: umoed``."""

    set_size: int | None = None  # M, number of queries; None: one for each bit
    hidden: int | None = None  # width of the decoder; None: that of the tokens
    layers: int = 6  # N, of the decoder
    heads: int = 8  # of attention
    feedforward: int = 2048  # width inside its feed-forward part
    experts: int = 8  # of the mixture that ends it
    slots: int = 8  # of each expert
    dropout: float = 0.3  # after every part of a layer


class DecoderLayer(nn.Module):
    """A post-norm transformer decoder layer whose feed-forward part ends in a soft mixture."""

    def __init__(self, width: int, config: UMoEDModelConfig) -> None:
        super().__init__()
        heads, dropout = config.heads, config.dropout
        self.self_attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.linear = nn.Linear(width, config.feedforward)
        self.moe = SoftMoE(config.feedforward, width, config.experts, config.slots)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Return queries x [B,M,D] after attention to each other and to tokens [B,L,D]."""
        seen, _ = self.self_attention(x, x, x, need_weights=False)
        x = self.norms[0](x + self.dropout(seen))
        seen, _ = self.cross_attention(x, tokens, tokens, need_weights=False)
        x = self.norms[1](x + self.dropout(seen))
        inner = self.dropout(F.relu(self.linear(x)))
        return self.norms[2](x + self.dropout(self.moe(inner)))


class Decoder(nn.Module):
    """Learned queries over the tokens of a row: [B,L,D] → [B,M,V]."""

    def __init__(self, width: int, queries: int, words: int, config: UMoEDModelConfig) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.layers = nn.ModuleList(DecoderLayer(width, config) for _ in range(config.layers))
        self.classifier = nn.Linear(width, words)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the words for each query and row."""
        x = self.queries.expand(len(tokens), -1, -1)
        for layer in self.layers:
            x = layer(x, tokens)
        return self.classifier(x)


def choice_codes(choices: Tensor) -> Tensor:
    """Return real-valued codes whose signs are the bits of the chosen words.

    Each bit is tanh(δ/2), δ the largest logit among words with that bit 1 less the largest among
    those with it 0, and thus has a gradient. Where δ is 0 the bit of the first of the largest
    decides: the code is 0 or just below.

    Args:
        choices: [B,M,V] logits over V = 2^n words; word v is written as n bits, the first the most
            significant.

    Returns:
        [B,Mn] in -1..1: the n bits of query 1, those of query 2, …

    >>> choice_codes(torch.tensor([[[0.0, 0.0, 3.0, 1.0]]]))  # word 2 = bits 1, 0
    tensor([[ 0.9051, -0.7616]])
    """
    size = (choices.shape[2] - 1).bit_length()
    chosen = choices.argmax(2)  # [B,M], the first of equals
    below = torch.finfo(choices.dtype).tiny
    bits = []
    for bit in range(size):
        best = choices.unflatten(2, (2**bit, 2, -1)).amax((2, 4))  # [B,M,2]
        code = ((best[..., 1] - best[..., 0]) / 2).tanh()
        zero = (chosen >> (size - 1 - bit)) % 2 == 0
        bits.append(code - below * (zero & (code == 0)))
    return torch.stack(bits, 2).flatten(1)


@MODELS.register(
    "umoed",
    config=UMoEDModelConfig,
    provides=("image_code", "text_code", "image_choices", "text_choices"),
)
class UMoED(HashModel):
    """UMoED (TOMM 2025): a decoder with a mixture of experts that writes codes word by word.

    Under several processes each draws dropout for its own rows, so training ends a little elsewhere
    than in one, as with another seed.
    """

    config: UMoEDModelConfig
    uses_tokens = True

    def __init__(self, config: UMoEDModelConfig, problem: Problem, backbone: Backbone) -> None:
        super().__init__(config, problem, backbone)
        queries = problem.bits if config.set_size is None else config.set_size
        if queries < 1 or problem.bits % queries or problem.bits // queries not in GROUPS:
            fitting = [str(problem.bits // n) for n in GROUPS if problem.bits % n == 0]
            raise UserError(
                f"model.set_size={queries} does not fit bits={problem.bits}: each query writes 1, "
                f"2, 4, 8 or 16 bits; give {' or '.join(fitting)}."
            )
        if not 0 <= config.dropout < 1:
            raise UserError(
                f"model.dropout={config.dropout} is no share to leave out; give 0 or more, below 1."
            )
        widths = {m: backbone.token_widths[m] for m in self.modalities}
        width = config.hidden or max(widths.values())
        if config.heads < 1 or width % config.heads:
            raise UserError(
                f"model.heads={config.heads} does not divide the decoder's width {width}; "
                "give another model.heads or model.hidden."
            )
        self.project = nn.ModuleDict(
            {
                m: nn.Sequential(nn.Linear(token_width, width), nn.ReLU())
                for m, token_width in widths.items()
                if token_width != width
            }
        )
        self.decoder = Decoder(width, queries, 2 ** (problem.bits // queries), config)

    def choices(self, batch: Batch, modality: str) -> Tensor:
        """Return the logits of the words [B,M,V]."""
        tokens = token_sequence(self.backbone, batch, modality)
        if modality in self.project:
            tokens = self.project[modality](tokens)  # as wide as the decoder
        return self.decoder(tokens)

    def forward(self, batch: Batch) -> Outputs:
        """Return ``<modality>_choices`` [B,M,V] and ``<modality>_code`` [B,K]."""
        outputs = Outputs()
        for modality in self.modalities:
            choices = self.choices(batch, modality)
            outputs[f"{modality}_choices"] = choices
            outputs[f"{modality}_code"] = choice_codes(choices)
        return outputs

    def encode(self, batch: Batch, modality: str) -> Tensor:
        """Return the codes [B,K] of :func:`choice_codes`."""
        return choice_codes(self.choices(batch, modality))


@dataclasses.dataclass(frozen=True)
class UMoEDLossConfig:
    """Keys of ``loss`` with ``name: umoed``."""

    triplet_alpha: float = 1.0  # weight of trip
    token_triplet_margin: float = 0.1  # of trip
    unif_alpha: float = 0.8  # weight of div
    uniformity_t: float = 20.0  # t of exp(-t ‖u - v‖²)
    # the first two position by position, the others as bags: models/losses/set_similarity.py
    distance: Literal["cosine", "euclidean", "smooth_chamfer", "chamfer", "max", "avg"] = "cosine"
    sharpness: float | None = 0.3  # T of softmax(e / T), for the first two; null: e itself
    temperature: float = 16.0  # of smooth_chamfer


@LOSSES.register("umoed", config=UMoEDLossConfig, needs=("image_choices", "text_choices"))
class UMoEDLoss(HashLoss):
    """UMoED (TOMM 2025): weighted triplets on sharpened choices, and diversity of the queries."""

    config: UMoEDLossConfig

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``token_i2t``, ``token_t2i``, ``div_image``, ``div_text``."""
        config = self.config
        image = F.normalize(outputs.image_choices, dim=2)  # [B,M,V]
        text = F.normalize(outputs.text_choices, dim=2)
        similar, weight = share_label(batch.label, batch.label), dcg_weight(batch.label)
        distance = self.distance(image, text)  # [B,B]; every form here is symmetric
        terms = Terms()
        for way, oriented in (("i2t", distance), ("t2i", distance.mT)):
            value = ranked_triplet(oriented, similar, weight, config.token_triplet_margin)
            terms[f"token_{way}"] = config.triplet_alpha / 4 * value
        for modality, entries in (("image", image), ("text", text)):
            crowding = diversity(entries, config.uniformity_t, "per_set")
            terms[f"div_{modality}"] = config.unif_alpha / 3 * crowding
        return terms

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the distance [A,B] of all pairs of unit entries [A,M,V] and [B,M,V]."""
        form, sharpness = self.config.distance, self.config.sharpness
        if form == "cosine" or form == "euclidean":
            if sharpness is not None:
                first, second = (first / sharpness).softmax(2), (second / sharpness).softmax(2)
            if form == "euclidean":
                return sequence_euclidean(first, second)
            return 1 - sequence_similarity(first, second)
        similarity = bag_similarity(member_products(first, second), form, self.config.temperature)
        return (1 - similarity).clamp_min(0)
