r"""DCMHT: Differentiable Cross Modal Hashing via Multimodal Transformers.

J. Tu, X. Liu, Z. Lin, R. Hong, M. Wang. ACM MM 2022, doi:10.1145/3503161.3548187.

Every bit is *selected* by a softmax over a pair of outputs instead of signed, so that the code is
differentiable: P ∈ [0,1]^{2K}, pairs (p₀, p₁) sum to 1, and bit k is +1 where p₁ > p₀ (else -1).
With D the Euclidean distances between such outputs, S = 1 for pairs that share a label, and the
margin M = √(2Kϑ), for (a,b) in image-text, image-image, text-text::

    L = Σ_{(a,b)} mean(S D_ab²) + mean((1-S) [M - D_ab]₊²)   (+ quan_alpha · quantisation)

With ``relevance: graded``, which is ours, a pair that shares some of its labels, J of all that
either has, is to lie where its share says: S (D_ab - M (1-J))² in the place of S D_ab².

Two heads exist, and one file of the loss serves both:

``select``  the authors' first repository, from which the paper's numbers come (our default):
            Linear D→128, ReLU, then K separate Linear 128→2, softmax each. No quantisation term.
``attention``  the authors' later toolkit: self-attention over a sequence of length one (which is
            its value and output projection), BatchNorm (image) or LayerNorm (text), Linear D→2K,
            ReLU, softmax over pairs; with 10⁻³ · (q(image) + q(text))/2, q(P) = 1 - mean((2P-1)²).
``linear``  the first repository's ``--hash-layer linear``: Linear D→K, Dropout 0.2, tanh;
            model and loss ``dcmht_linear``.

Deviations from the released code
    * The toolkit's ``similarity: cosine`` is counted twice there (returned as positive and as
      negative term); kept, since the recorded numbers have it, under the name
      ``cosine_likelihood``.
    * The toolkit never reads its ``loss_type``; here ``power`` works for both heads.
    * The query and key parts of the attention get no gradient (softmax over one key is 1); they are
      kept as parameters, so that weights interchange, but not computed.
    * Known limits, kept. Pairs that share one label of several are drawn together like equal ones:
      where every picture has one label of an exclusive group, codes collapse to one per label of
      that group (seen on scenes that all had a place: 59 codes for 4,500 pictures). The others are
      to differ in ϑK bits, and of codes that differ in more than half of their bits there are few
      (M. Plotkin, 1960): two for ϑ = 0.75. On creatures_scenes both keep the loss near ITQ at 64
      bits; ``relevance: graded`` with ϑ = 0.5 gains 0.05 to 0.07 (docs/cross_modal.md).
    * Unlabelled rows: the reference falls back to the identity as labels; our datasets refuse such
      rows.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.pairwise import label_overlap, pairwise_cosine, pairwise_euclidean, share_label
from common.registry import LOSSES, MODELS
from models.base import Backbone, Batch, HashLoss, HashModel, Outputs, Problem, Progress, Terms
from models.layers.heads import BatchNorm, LinearTanhConfig, LinearTanhModel, kaiming_fan_out
from models.layers.pair_softmax import pair_softmax, pairs_to_code
from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class DCMHTModelConfig:
    """Keys of ``model`` with ``name: dcmht``."""

    head: Literal["select", "attention"] = "select"  # see above
    hidden: int = 128  # width of the select head
    attention_heads: int = 8  # of the attention head; no effect on what it computes


class SelectHead(nn.Module):
    """Linear, ReLU, K separate two-way layers: [B,D] → pairs [B,2K] (authors' first repository)."""

    def __init__(self, width: int, bits: int, hidden: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, hidden)
        # separate tensors, not one [2K,hidden]: init and BertAdam's clipping are per tensor
        self.bit_layers = nn.ModuleList(nn.Linear(hidden, 2) for _ in range(bits))
        kaiming_fan_out(self)

    def forward(self, features: Tensor) -> Tensor:
        """Return the selection probabilities [B,2K]."""
        hidden = F.relu(self.fc(features))
        weights, biases = zip(*((n.weight, n.bias) for n in self.bit_layers), strict=True)
        return pair_softmax(F.linear(hidden, torch.cat(weights), torch.cat(biases)))  # [2K,hidden]


class AttentionHead(nn.Module):
    """Attention over one token, norm, Linear, ReLU: [B,D] → pairs [B,2K] (authors' toolkit)."""

    def __init__(self, width: int, bits: int, heads: int, modality: str) -> None:
        super().__init__()
        # the heads must divide the width; their number changes nothing over a single key
        self.attention = nn.MultiheadAttention(width, math.gcd(heads, width))
        self.norm = BatchNorm(width) if modality == "image" else nn.LayerNorm(width)
        self.fc = nn.Linear(width, 2 * bits)
        kaiming_fan_out(self.fc)

    def forward(self, features: Tensor) -> Tensor:
        """Return the selection probabilities [B,2K]."""
        width = features.shape[1]
        attention = self.attention
        value_weight = attention.in_proj_weight[2 * width :]
        value_bias = attention.in_proj_bias[2 * width :]
        attended = attention.out_proj(F.linear(features, value_weight, value_bias))  # [B,D]
        return pair_softmax(F.relu(self.fc(self.norm(attended))))


@MODELS.register(
    "dcmht",
    config=DCMHTModelConfig,
    provides=("image_code", "text_code", "image_pairs", "text_pairs"),
)
class DCMHT(HashModel):
    """DCMHT (ACM MM 2022): every bit chosen by a softmax over a pair of outputs.

    Under several processes the batch statistics of the attention head are of each process's own
    rows, and the running ones of the first process's, so training ends a little elsewhere than in
    one. The select head trains to the same.
    """

    config: DCMHTModelConfig

    def __init__(self, config: DCMHTModelConfig, problem: Problem, backbone: Backbone) -> None:
        super().__init__(config, problem, backbone)
        self.heads = nn.ModuleDict({m: self._head(m) for m in self.modalities})

    def _head(self, modality: str) -> nn.Module:
        width, bits = self.backbone.widths[modality], self.problem.bits
        if self.config.head == "select":
            return SelectHead(width, bits, self.config.hidden)
        return AttentionHead(width, bits, self.config.attention_heads, modality)

    def pairs(self, batch: Batch, modality: str) -> Tensor:
        """Return the selection probabilities [B,2K]."""
        return self.heads[modality](self.backbone(batch, modality).pooled)

    def forward(self, batch: Batch) -> Outputs:
        """Return ``<modality>_pairs`` [B,2K] and ``<modality>_code`` = p₁ - p₀ [B,K]."""
        outputs = Outputs()
        for modality in self.modalities:
            pairs = self.pairs(batch, modality)
            outputs[f"{modality}_pairs"] = pairs
            outputs[f"{modality}_code"] = pairs[:, 1::2] - pairs[:, 0::2]
        return outputs

    def encode(self, batch: Batch, modality: str) -> Tensor:
        """Return p₁ - p₀ [B,K], ties below 0."""
        return pairs_to_code(self.pairs(batch, modality))


@MODELS.register("dcmht_linear", config=LinearTanhConfig, provides=("image_code", "text_code"))
class DCMHTLinear(LinearTanhModel):
    """DCMHT's linear option: Linear, Dropout, tanh for each modality."""

    def build_head(self, width: int) -> nn.Module:
        """Return Linear (kaiming-uniform, fan-out), Dropout, tanh."""
        head = super().build_head(width)
        kaiming_fan_out(head)
        return head


@dataclasses.dataclass(frozen=True)
class DCMHTLossConfig:
    """Keys of ``loss`` with ``name: dcmht`` or ``dcmht_linear``."""

    similarity: Literal["euclidean", "cosine", "cosine_likelihood"] = "euclidean"  # of L
    power: Literal[1, 2] = 2  # l1 or l2
    vartheta: float = 0.75  # ϑ of the margin √(2Kϑ)
    relevance: Literal["shared", "graded"] = "shared"  # graded: by share of labels; euclidean only
    threshold: float = 0.1  # of the two cosine forms; 0 means 0.05 in `cosine`, as released
    quan_alpha: float = 0.0  # weight of the quantisation term; 0.001 in the toolkit

    def __post_init__(self) -> None:
        if self.relevance == "graded" and self.similarity != "euclidean":
            raise UserError(
                f"loss.relevance=graded places pairs by distance, and loss.similarity="
                f"{self.similarity} has no margin for that; give loss.similarity=euclidean."
            )


def similarity_terms(
    first: Tensor, second: Tensor, similar: Tensor, bits: int, config: DCMHTLossConfig
) -> tuple[Tensor, Tensor]:
    """Return the positive and the negative term of one pair of modalities.

    Args:
        first: [B,E] outputs of one modality.
        second: [B,E] outputs of the other.
        similar: [B,B] above 0 where a pair shares a label; 1 if it is to coincide.
        bits: K, for the margin.
        config: form, power, margin and threshold.
    """
    if config.similarity == "cosine_likelihood":
        bounded = pairwise_cosine(first, second).clamp(config.threshold, 1 - config.threshold)
        # the toolkit returns this likelihood as both terms, so that it counts twice
        likelihood = F.binary_cross_entropy(bounded, similar)
        return likelihood, likelihood
    if config.similarity == "cosine":
        distance = 1 - pairwise_cosine(first, second)
        positive = (similar * distance - (config.threshold or 0.05)).clamp_min(0)
        negative = (1 - similar) * (1 - distance).clamp_min(0)
    else:
        distance = pairwise_euclidean(first, second)
        margin = math.sqrt(2 * bits * config.vartheta)
        positive = (similar > 0) * (distance - margin * (1 - similar)).abs()
        negative = (similar == 0) * (margin - distance).clamp_min(0)
    return positive.pow(config.power).mean(), negative.pow(config.power).mean()


class _SimilarityLoss(HashLoss):
    """Sum of the similarity terms over image-text, image-image, text-text, and a quantiser."""

    config: DCMHTLossConfig
    output = "code"

    def __init__(self, config: DCMHTLossConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        self.bits = problem.bits

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``pos_<pair>``, ``neg_<pair>`` for it, ii, tt, and ``quan`` if it has a weight."""
        values = {m: outputs[f"{m}_{self.output}"] for m in ("image", "text")}
        relevance = label_overlap if self.config.relevance == "graded" else share_label
        similar = relevance(batch.label, batch.label).to(values["image"].dtype)
        terms = Terms()
        for a, b in (("image", "text"), ("image", "image"), ("text", "text")):
            positive, negative = similarity_terms(
                values[a], values[b], similar, self.bits, self.config
            )
            terms[f"pos_{a[0]}{b[0]}"], terms[f"neg_{a[0]}{b[0]}"] = positive, negative
        if self.config.quan_alpha:
            both = self.quantization(values["image"]) + self.quantization(values["text"])
            terms["quan"] = self.config.quan_alpha * both / 2
        return terms

    @abstractmethod
    def quantization(self, value: Tensor) -> Tensor:
        """Return how far outputs are from being codes, a scalar."""


@LOSSES.register("dcmht", config=DCMHTLossConfig, needs=("image_pairs", "text_pairs"))
class DCMHTLoss(_SimilarityLoss):
    """DCMHT (ACM MM 2022): distances below and above a margin between selection probabilities."""

    output = "pairs"

    def quantization(self, value: Tensor) -> Tensor:
        """Return 1 - mean((2P-1)²): 0 exactly when every pair is one-hot."""
        return 1 - (2 * value - 1).pow(2).mean()


@LOSSES.register("dcmht_linear", config=DCMHTLossConfig, needs=("image_code", "text_code"))
class DCMHTLinearLoss(_SimilarityLoss):
    """DCMHT's loss on real-valued codes, for its linear head and any other model."""

    def quantization(self, value: Tensor) -> Tensor:
        """Return half the mean distance of the codes to their signs (released with weight 1)."""
        return 0.5 * (value.sign() - value).norm(dim=1).mean()
