r"""MITH: Multi-Granularity Interactive Transformer Hashing for Cross-modal Retrieval.

Y. Liu, Q. Wu, Z. Zhang, J. Zhang, G. Lu. ACM MM 2023, doi:10.1145/3581783.3612411.

Two codes are made of each row and added: h from the pooled feature, u from its tokens, gathered
into one vector per bit (:mod:`models.layers.concept_head`). Both learn from memory banks over the
training set, from each other, and from a contrast of matching pictures and texts.

Head, for both modalities: a residual MLP x ← x + W₂ gelu(W₁ LN(x)), twice, then c = tanh(W x) of K
concepts, one module for pictures, texts, pooled features and tokens. h is the c of the pooled
feature. The c of the tokens, without gradient, says which tokens make up which concept: a token
takes part in its 8 most active concepts as far as they are positive, and over the tokens a softmax
of c weights them. A transformer for each modality runs over the K concept vectors t_k, and
u_k = tanh(w_k · t_k + b_k). Code: sign(h + u).

Loss: see :mod:`models.losses.concept_loss` for bay, quant and distill, with weights 1 (intra), 10
(inter), 8 (quant), 1 (distill), and 50 for::

    contrast = nce(r_i, r_t) + α · mean_n nce(v_i^n, v_t^n)

r: refined pooled features of unit length; v^n: the K concept vectors of row n through a linear
layer, of unit length; nce(a,b): mean cross-entropy of the rows and of the columns of a b^T/0.07
with the diagonal as target; α = 0.01. Labels play no part in it.

``image_code`` and ``text_code`` are (h + u)/2, which lies in (-1,1) as other methods' codes do; the
released code takes the sign of h + u, which is the same.

Deviations from the released code
    * sign(0) = +1 in the target B, where the reference has 0.
    * Fewer bits than ``top_k`` are accepted: a token may then take part in every concept.
    * The position code is computed in float64 and rounded once (6e-8 from the reference's).
    * The reference hides padding inside the text transformer too. Its mask is causal and padding
      comes last, so no visible token depends on it: ``backbone.text_padding_mask`` may stay off.
    * The later toolkit's port is not followed: it cannot be constructed, makes one tensor of the
      four memory banks on a GPU, and trains CLIP at another rate than its configuration says.
"""

from __future__ import annotations

import dataclasses

import torch.nn.functional as F
from torch import Tensor, nn

from common.registry import LOSSES, MODELS
from models.base import MODALITIES, Backbone, Batch, HashModel, Outputs, Problem
from models.layers.concept_head import ConceptFeatures, ConceptHead, ConceptHeadConfig, common_width
from models.losses.concept_loss import NEEDS, ConceptLoss, ConceptLossConfig, match_entropy
from utils.errors import UserError

VECTORS = tuple(f"{m}_{part}" for m in MODALITIES for part in ("pooled", "concepts"))


@MODELS.register(
    "mith", config=ConceptHeadConfig, provides=("image_code", "text_code", *NEEDS, *VECTORS)
)
class MITH(HashModel):
    """MITH (ACM MM 2023): a code from the pooled feature and one from the tokens, added."""

    uses_tokens = True

    def __init__(self, config: ConceptHeadConfig, problem: Problem, backbone: Backbone) -> None:
        super().__init__(config, problem, backbone)
        width = common_width(backbone, "MITH")
        self.head = ConceptHead(width, problem.bits, self.modalities, config)
        self.projections = nn.ModuleDict({m: nn.Linear(width, width) for m in self.modalities})

    def forward(self, batch: Batch) -> Outputs:
        """Return codes, and for the contrast vectors of unit length, for both modalities.

        ``<m>_code``, ``<m>_pooled_code``, ``<m>_token_code`` [B,K]; ``<m>_pooled`` [B,D];
        ``<m>_concepts`` [B,K,D].
        """
        outputs = Outputs()
        for m in self.modalities:
            features = self._features(batch, m)
            outputs[f"{m}_code"] = (features.pooled_code + features.token_code) / 2
            outputs[f"{m}_pooled_code"] = features.pooled_code
            outputs[f"{m}_token_code"] = features.token_code
            outputs[f"{m}_pooled"] = F.normalize(features.pooled, dim=-1)
            outputs[f"{m}_concepts"] = F.normalize(self.projections[m](features.concepts), dim=-1)
        return outputs

    def encode(self, batch: Batch, modality: str) -> Tensor:
        """Return (h + u)/2, [B,K]."""
        features = self._features(batch, modality)
        return (features.pooled_code + features.token_code) / 2

    def _features(self, batch: Batch, modality: str) -> ConceptFeatures:
        return self.head(self.backbone(batch, modality, tokens=True), modality)


@dataclasses.dataclass(frozen=True)
class MITHLossConfig(ConceptLossConfig):
    """Keys of ``loss`` with ``name: mith``."""

    alpha: float = 0.01  # α, of the contrast between the concepts of one row
    temperature: float = 0.07  # of both contrasts

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise UserError(f"loss.temperature={self.temperature} has to be above 0, e.g. 0.07.")


@LOSSES.register("mith", config=MITHLossConfig, needs=(*NEEDS, *VECTORS))
class MITHLoss(ConceptLoss):
    """MITH (ACM MM 2023): likelihood against memories, contrast, distillation between two codes."""

    config: MITHLossConfig

    def contrast(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return nce of the pooled features plus α times that of the concepts of each row."""
        temperature = self.config.temperature
        pooled = outputs.image_pooled @ outputs.text_pooled.mT / temperature  # [B,B]
        concepts = outputs.image_concepts @ outputs.text_concepts.mT / temperature  # [B,K,K]
        return match_entropy(pooled) + self.config.alpha * match_entropy(concepts)
