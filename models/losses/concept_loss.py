"""The part of MITH's loss that VTPH shares, and the contrast of matching rows.

With h and u the codes of the pooled features and of the tokens, i and t for image and text, and
memory banks H, U of both over all N training rows (written just before)::

    bay(A,b) = mean over N·B pairs of log(1+e^θ) - S θ,   θ = ½ clamp(A b^T, -64, 64)
    intra    = bay(U_i, u_i) + bay(U_t, u_t)
    inter    = bay(H_i, h_t) + bay(H_t, h_i)
    quant    = Σ_m mean(((h_m + u_m)/2 - B)²)
    distill  = (1/B) Σ_m ‖sg(h_m) - u_m‖² + 0.1 ‖h_m - sg(u_m)‖²
    B        = sg(sign(λ h_i + (1-λ) u_i + λ h_t + (1-λ) u_t))

sg stops the gradient; the norms in ``distill`` sum over all B·K entries.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.codes import sign
from common.pairwise import share_label
from models.base import MODALITIES, Batch, HashLoss, Outputs, Problem, Progress, Terms
from models.losses.memory_bank import MemoryBank, memory_likelihood, train_labels

NEEDS = tuple(f"{m}_{part}" for m in MODALITIES for part in ("pooled_code", "token_code"))


@dataclasses.dataclass(frozen=True)
class ConceptLossConfig:
    """Keys of ``loss`` that MITH and VTPH share."""

    lambda_intra: float = 1.0  # weight of the likelihood within a modality
    lambda_inter: float = 10.0  # β
    lambda_quant: float = 8.0  # γ
    lambda_contrast: float = 50.0  # δ
    lambda_distill: float = 1.0  # μ
    back_distill: float = 0.1  # share of the distillation from tokens to the pooled feature
    pooled_share: float = 0.99  # λ, of the pooled code in the target B


class ConceptLoss(HashLoss):
    """Four terms over two granularities and their memory banks; the subclass adds a contrast."""

    config: ConceptLossConfig
    label: Tensor

    def __init__(self, config: ConceptLossConfig, problem: Problem) -> None:
        """Draw the memory banks; the training rows' labels are data and not in checkpoints."""
        super().__init__(config, problem)
        name = type(self).__name__.removesuffix("Loss")
        self.register_buffer("label", train_labels(problem, name), persistent=False)  # [N,C]
        self.memories = nn.ModuleDict({name: MemoryBank(problem) for name in NEEDS})

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``intra``, ``inter``, ``quant``, ``contrast`` and ``distill``.

        Memory banks are written in training only: other rows have no row in them.
        """
        if self.training:
            for name, bank in self.memories.items():
                bank.write(batch.index, outputs[name])  # type: ignore[operator]
        similar = share_label(self.label, batch.label).to(outputs[NEEDS[0]].dtype)  # [N,B]
        config = self.config
        intra = self._likelihood("image_token", outputs.image_token_code, similar)
        intra = intra + self._likelihood("text_token", outputs.text_token_code, similar)
        inter = self._likelihood("image_pooled", outputs.text_pooled_code, similar)
        inter = inter + self._likelihood("text_pooled", outputs.image_pooled_code, similar)
        return Terms(
            intra=config.lambda_intra * intra,
            inter=config.lambda_inter * inter,
            quant=config.lambda_quant * self.quantization(outputs),
            contrast=config.lambda_contrast * self.contrast(outputs, batch),
            distill=config.lambda_distill * self.distillation(outputs),
        )

    def _likelihood(self, bank: str, code: Tensor, similar: Tensor) -> Tensor:
        return memory_likelihood(self.memories[f"{bank}_code"].rows, code, similar)  # type: ignore[arg-type]

    @abstractmethod
    def contrast(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the contrast of matching rows against the others, a scalar without its weight."""

    def target(self, outputs: Outputs) -> Tensor:
        """Return the common code B of both modalities [B,K] of ±1, without gradient."""
        share = self.config.pooled_share
        pooled = outputs.image_pooled_code + outputs.text_pooled_code
        token = outputs.image_token_code + outputs.text_token_code
        return sign((share * pooled + (1 - share) * token).detach())

    def quantization(self, outputs: Outputs) -> Tensor:
        """Return the mean squared distance of both modalities' codes to the target, summed."""
        target = self.target(outputs)
        codes = ((outputs[f"{m}_pooled_code"] + outputs[f"{m}_token_code"]) / 2 for m in MODALITIES)
        return torch.stack([F.mse_loss(code, target) for code in codes]).sum()

    def distillation(self, outputs: Outputs) -> Tensor:
        """Return the squared distance of the two granularities, per row, summed over modalities."""
        total = []
        for m in MODALITIES:
            pooled, token = outputs[f"{m}_pooled_code"], outputs[f"{m}_token_code"]
            total.append((pooled.detach() - token).pow(2).sum() / len(token))
            back = (pooled - token.detach()).pow(2).sum() / len(token)
            total.append(self.config.back_distill * back)
        return torch.stack(total).sum()


def match_entropy(logits: Tensor) -> Tensor:
    """Return the cross-entropy of picking the matching entry in rows and in columns, averaged.

    The InfoNCE of CLIP: entry (n,n) of each matrix belongs together.

    Args:
        logits: [...,M,M] similarities over a temperature; a batch of matrices is averaged over.
    """
    matching = logits.diagonal(dim1=-2, dim2=-1).mean()
    rows, columns = logits.logsumexp(-1).mean(), logits.logsumexp(-2).mean()
    return (rows + columns) / 2 - matching
