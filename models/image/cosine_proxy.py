"""Cosine proxies: a simple reference method for frozen features, ours, not published.

Two-layer heads on standardised features, learned class proxies, one AdamW. With ẑ, P̂ of unit
length::

    L = Σ_modalities  mean_{Y=1}(1 - ẑ·P̂)  +  mean_{Y=0} [ẑ·P̂ - 0.1]₊

A published method that scores below this on the same features owes its published rank to its
encoder or its recipe.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from common.registry import LOSSES, MODELS
from models.base import Batch, HashLoss, Outputs, Problem, Progress, Terms
from models.layers.heads import StandardizedHeadModel, mlp_tanh_head
from models.losses.pair_terms import masked_mean


@dataclasses.dataclass(frozen=True)
class MLPHashConfig:
    """Keys of ``model`` with ``name: mlp_hash``."""

    hidden: int = 512  # width of the inner layer
    dropout: float = 0.3  # behind the inner layer
    standardize: bool = True  # features first, by their training statistics


@MODELS.register("mlp_hash", config=MLPHashConfig, provides=("image_code", "text_code"))
class MLPHash(StandardizedHeadModel):
    """Two-layer heads with tanh on standardised features, for whatever modalities the data has.

    Under several processes each draws dropout for its own rows, so training ends a little elsewhere
    than in one, as with another seed.
    """

    modalities: tuple[str, ...] = ()
    config: MLPHashConfig

    def build_head(self, width: int) -> nn.Module:
        """Return Linear, ReLU, Dropout, Linear, tanh."""
        config = self.config
        return mlp_tanh_head(width, config.hidden, self.problem.bits, config.dropout)


@dataclasses.dataclass(frozen=True)
class CosineProxyConfig:
    """Keys of ``loss`` with ``name: cosine_proxy``."""

    margin: float = 0.1  # cosine to a class without the label, above which a row is pushed away


@LOSSES.register(
    "cosine_proxy", config=CosineProxyConfig, needs=("*_code",), groups={"proxies": {}}
)
class CosineProxyLoss(HashLoss):
    """Cosine to learned class proxies: high where the label is, below a margin elsewhere."""

    config: CosineProxyConfig
    group = "proxies"

    def __init__(self, config: CosineProxyConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        proxies = torch.randn(problem.n_classes, problem.bits, generator=problem.generator)
        self.proxies = nn.Parameter(proxies)  # [C,K]

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``pos_<modality>`` and ``neg_<modality>`` for every code there is."""
        proxies = F.normalize(self.proxies, dim=1)
        label = batch.label.to(proxies.dtype)
        terms = Terms()
        for modality, code in outputs.codes().items():
            cosine = F.normalize(code, dim=1) @ proxies.T  # [B,C]
            excess = (cosine - self.config.margin).clamp_min(0)
            terms[f"pos_{modality}"] = masked_mean(1 - cosine, label)
            terms[f"neg_{modality}"] = masked_mean(excess, 1 - label)
        return terms
