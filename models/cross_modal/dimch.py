r"""DIMCH: Cross-modal Hashing via Diverse Instances Matching.

IEEE Transactions on Image Processing 2025, IEEE Xplore document 10974482.

Each row becomes a *set* of M instances, so that a picture and a text can match in parts. The tokens
T [L,D] of a row are mixed by a convolution that takes tokens as channels and slides along the
features; an MLP makes instances of K values of it, and their mean is the code::

    Z = ReLU(conv_{L→M, 3}(T)) ∈ ℝ^{M x D}
    E = W₂ dropout(ReLU(W₁ Z)) ∈ ℝ^{M x K}     W₁: D → D/2     h = tanh(mean_m E_m) ∈ ℝ^K

With e the instances of unit length, s the smooth Chamfer similarity of sets (τ = 16), trip the
weighted triplet loss (:mod:`models.losses.ranked_triplet`), D^tok = [1 - s]₊ and D^hash = [1 -
cos]₊ of image against text and of text against image::

    L = 50 (trip(D^tok_it) + trip(D^tok_ti))/2 + 50 (trip(D^hash_it) + trip(D^hash_ti))/2
        + mmd(e_i, e_t) + 0.3 (div(e_i) + div(e_t)) + Σ_z mean((h_z - sign h_z)²)/2

mmd is the maximum mean discrepancy of all instances with the kernel exp(-‖u - v‖/2), of the
distance and not of its square. div is Σ exp(-20 ‖u - v‖²) over pairs of instances, divided by
M(M-1)/2: it keeps the instances of a set apart.

Deviations from the released code
    * The released div flattens the batch: its pairs cross the rows, and it is not divided by B, so
      that its weight grows with B². ``diversity: flattened`` (default) does so too;
      ``diversity: per_set`` takes pairs inside each set and the mean over rows, as the name says.
      The released one builds a tensor of (BM)³ numbers, ours one of (BM)².
    * Tokens and rows are distinguished by the order of the axes. The released code looks for the
      axis whose size is the number of tokens, and so mixes rows where a batch is as long as a text.
    * Codes chosen by softmax over pairs (its ``hash_func: softmax``) are left out: it takes their
      sign, which is always +1.
    * ``similarity: avg`` is the mean of sigmoid(c), not of sigmoid(α c + β): no optimiser there
      has α and β, which stay 1 and 0.
    * The MMD's gradient is 0 where instances coincide, and distances are taken by differences.
      ``torch.cdist`` changes to a matrix product above 25 rows, which costs digits near 0.
    * The pooled feature joins the picture's tokens only where it has their width.
    * A text's padding is among its tokens, as released.
"""

from __future__ import annotations

import dataclasses

import torch.nn.functional as F
from torch import Tensor, nn

from common.pairwise import pairwise_cosine, share_label
from common.registry import LOSSES, MODELS
from models.base import Backbone, Batch, HashLoss, HashModel, Outputs, Problem, Progress, Terms
from models.layers.heads import kaiming_fan_out
from models.layers.token_sequence import token_count, token_sequence
from models.losses.ranked_triplet import dcg_weight, ranked_triplet
from models.losses.set_regularizers import DiversityForm, diversity, mean_discrepancy
from models.losses.set_similarity import BagForm, bag_similarity, member_products
from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class DIMCHModelConfig:
    """Keys of ``model`` with ``name: dimch``."""

    set_size: int = 8  # M
    dropout: float = 0.3  # inside the heads


class InstanceHead(nn.Module):
    """Tokens [B,L,D] → instances [B,M,K]: a convolution over tokens as channels, then an MLP."""

    def __init__(self, tokens: int, width: int, bits: int, config: DIMCHModelConfig) -> None:
        """Initialise as released: He, normal by fan-in and uniform by fan-out; biases 0."""
        super().__init__()
        hidden = max(width // 2, 1)
        self.conv = nn.Conv1d(tokens, config.set_size, kernel_size=3, padding=1)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, bits),
        )
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_in")
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]  # it has one
        kaiming_fan_out(self.mlp)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the instances [B,M,K]."""
        if tokens.shape[1] != self.conv.in_channels:
            raise UserError(
                f"DIMCH was built for rows of {self.conv.in_channels} tokens, these have "
                f"{tokens.shape[1]}; encode with the settings of the training run "
                "(backbone.max_words, backbone.image_size)."
            )
        return self.mlp(F.relu(self.conv(tokens)))


@MODELS.register(
    "dimch",
    config=DIMCHModelConfig,
    provides=("image_code", "text_code", "image_instances", "text_instances"),
)
class DIMCH(HashModel):
    """DIMCH (TIP 2025): a set of instances for each row, whose mean is the code.

    Under several processes each draws dropout for its own rows, so training ends a little elsewhere
    than in one, as with another seed.
    """

    config: DIMCHModelConfig
    uses_tokens = True

    def __init__(self, config: DIMCHModelConfig, problem: Problem, backbone: Backbone) -> None:
        super().__init__(config, problem, backbone)
        if config.set_size < 1:
            raise UserError(f"model.set_size={config.set_size} has to be at least 1.")
        self.heads = nn.ModuleDict({m: self._head(m) for m in self.modalities})

    def _head(self, modality: str) -> InstanceHead:
        tokens, width = token_count(self.backbone, modality), self.backbone.token_widths[modality]
        return InstanceHead(tokens, width, self.problem.bits, self.config)

    def instances(self, batch: Batch, modality: str) -> Tensor:
        """Return the instances [B,M,K], not normalised."""
        return self.heads[modality](token_sequence(self.backbone, batch, modality))

    def forward(self, batch: Batch) -> Outputs:
        """Return ``<modality>_instances`` [B,M,K] and ``<modality>_code`` [B,K]."""
        outputs = Outputs()
        for modality in self.modalities:
            instances = self.instances(batch, modality)
            outputs[f"{modality}_instances"] = instances
            outputs[f"{modality}_code"] = instances.mean(1).tanh()
        return outputs

    def encode(self, batch: Batch, modality: str) -> Tensor:
        """Return h [B,K]."""
        return self.instances(batch, modality).mean(1).tanh()


@dataclasses.dataclass(frozen=True)
class DIMCHLossConfig:
    """Keys of ``loss`` with ``name: dimch``."""

    triplet_alpha: float = 50.0  # weight of the triplets of sets
    token_triplet_margin: float = 0.3  # of sets
    hash_triplet_alpha: float = 50.0  # weight of the triplets of codes
    triplet_margin: float = 0.3  # of codes
    mmd_alpha: float = 1.0  # weight of the mmd of both modalities' instances
    mmd_gamma: float = 0.5  # γ of the kernel exp(-γ ‖u - v‖)
    unif_alpha: float = 0.3  # weight of div
    uniformity_t: float = 20.0  # t of exp(-t ‖u - v‖²)
    diversity: DiversityForm = "flattened"  # as released, or within each set
    quan_alpha: float = 1.0  # weight of the quantisation term
    similarity: BagForm = "smooth_chamfer"  # of two sets
    temperature: float = 16.0  # τ
    temperature_txt_scale: float = 1.0  # ρ, on τ in the sum over the first set's instances
    denominator: float = 2.0  # of the two sums of that similarity


@LOSSES.register(
    "dimch",
    config=DIMCHLossConfig,
    needs=("image_code", "text_code", "image_instances", "text_instances"),
)
class DIMCHLoss(HashLoss):
    """DIMCH (TIP 2025): weighted triplets of sets and codes, MMD, diversity, quantisation."""

    config: DIMCHLossConfig

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``token_*``, ``hash_*`` (i2t, t2i), ``mmd``, ``div_*`` and ``quan_*``."""
        config = self.config
        image = F.normalize(outputs.image_instances, dim=2)  # [B,M,K]
        text = F.normalize(outputs.text_instances, dim=2)
        codes = {"image": outputs.image_code, "text": outputs.text_code}
        similar, weight = share_label(batch.label, batch.label), dcg_weight(batch.label)
        cosine = pairwise_cosine(codes["image"], codes["text"])  # [B,B]
        terms = Terms()
        for way, sets, code in (
            ("i2t", self.set_similarity(image, text), cosine),
            ("t2i", self.set_similarity(text, image), cosine.mT),
        ):
            for name, similarity, alpha, margin in (
                ("token", sets, config.triplet_alpha, config.token_triplet_margin),
                ("hash", code, config.hash_triplet_alpha, config.triplet_margin),
            ):
                distance = (1 - similarity).clamp_min(0)
                value = ranked_triplet(distance, similar, weight, margin)
                terms[f"{name}_{way}"] = alpha / 2 * value
        terms["mmd"] = config.mmd_alpha * mean_discrepancy(
            image.flatten(0, 1), text.flatten(0, 1), config.mmd_gamma
        )
        for modality, members in (("image", image), ("text", text)):
            crowding = diversity(members, config.uniformity_t, config.diversity)
            terms[f"div_{modality}"] = config.unif_alpha * crowding
            code = codes[modality]
            terms[f"quan_{modality}"] = config.quan_alpha / 2 * (code - code.sign()).pow(2).mean()
        return terms

    def set_similarity(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the similarity [A,B] of sets of unit instances [A,M,K] and [B,M,K]."""
        config = self.config
        return bag_similarity(
            member_products(first, second),
            config.similarity,
            config.temperature,
            config.temperature_txt_scale,
            config.denominator,
        )
