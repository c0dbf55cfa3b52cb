"""DSH: Deep Supervised Hashing for Fast Image Retrieval.

H. Liu, R. Wang, S. Shan, X. Chen. CVPR 2016, doi:10.1109/CVPR.2016.227.

A contrastive loss: outputs of similar rows come together, those of others are pushed beyond a
margin, and all are drawn to ±1. With D the squared Euclidean distances of outputs u, S = 1 for
pairs that share a label, and m = 2K, half of the largest squared distance of two codes::

    L = ½ mean(S D + (1-S) [m - D]₊)  +  λ mean(| |u| - 1 |)

``pairs: memory`` forms the pairs between the batch and the last known u of all training rows, as
DeepHash-pytorch does; the paper, and our default, have the pairs of the batch.

Deviations
    * λ = 0.1 weights a mean over rows and bits, as in DeepHash-pytorch. The paper's 0.01 weights,
      for every pair, the sum over the bits of both rows: 0.02 K in our terms.
    * With a memory bank, rows not visited yet are dissimilar ones with code 0 (as released): during
      the first epoch they push ‖u‖² towards m.
    * The reference forms differences of all pairs; we expand ‖a - b‖² into products, which is much
      faster and close enough for a margin of 2K.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor

from common.registry import LOSSES
from models.base import Batch, Outputs, Problem, Progress, Terms
from models.losses.pair_loss import PairwiseConfig, PairwiseLoss


@dataclasses.dataclass(frozen=True)
class DSHConfig(PairwiseConfig):
    """Keys of ``loss`` with ``name: dsh``."""

    margin: float | None = None  # m; None: 2K
    lambda_quant: float = 0.1  # λ


@LOSSES.register("dsh", config=DSHConfig, needs=("image_code",))
class DSHLoss(PairwiseLoss):
    """DSH (CVPR 2016): contrastive loss on squared distances, outputs drawn to ±1."""

    config: DSHConfig

    def __init__(self, config: DSHConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        self.margin = 2.0 * problem.bits if config.margin is None else config.margin

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``pair`` and ``quant``."""
        code = outputs.image_code
        rows, similar = self.partners(code, batch)
        distance = squared_distance(code, rows)  # [B,M]
        pair = similar * distance + (1 - similar) * (self.margin - distance).clamp_min(0)
        quant = (code.abs() - 1).abs().mean()
        return Terms(pair=pair.mean() / 2, quant=self.config.lambda_quant * quant)


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return ‖a_i - b_j‖² [N,M] of rows [N,K] and [M,K], by one matrix product.

    Near 0 its error is that of ‖a‖², so that roots of it should not be taken.
    """
    return a.pow(2).sum(1)[:, None] + b.pow(2).sum(1) - 2 * a @ b.mT
