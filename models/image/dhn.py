"""DHN: Deep Hashing Network for Efficient Similarity Retrieval.

H. Zhu, M. Long, J. Wang, Y. Cao. AAAI 2016, doi:10.1609/aaai.v30i1.10235.

The likelihood of DPSH on squashed codes z = tanh(u), and a quantisation term that is the negative
logarithm of a bimodal prior with its modes at ±1, smooth where |z| - 1 is small. With S = 1 for
pairs that share a label::

    L = mean [log(1+e^θ) - S θ]  +  λ mean(log cosh(|z| - 1)),      θ = α z zᵀ

``pairs: memory`` compares the batch with the last known z of all training rows, as constants.

Deviations
    * The paper has α = 1 (our default). θ then reaches K in size and the likelihood of long codes
      saturates: on cifar10_subset (frozen features, one seed) mAP is 0.428 at 16 and 0.300 at 64
      bits. ``loss.alpha=null`` takes 10/K, which keeps θ within ±10: 0.516 and 0.585.
    * λ is chosen by validation in the paper; 0.1 is what its relatives use. The terms are means
      where the paper has sums.
    * DeepHash-pytorch leaves the tanh out, has α = ½ and the memory bank: ``code: output``,
      ``alpha: 0.5``, ``pairs: memory``.
    * Not checked against recorded numbers: written from the equations.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from common.registry import LOSSES
from models.base import Batch, Outputs, Problem, Progress, Terms
from models.losses.pair_loss import PairwiseConfig, PairwiseLoss
from models.losses.pair_terms import pair_likelihood


@dataclasses.dataclass(frozen=True)
class DHNConfig(PairwiseConfig):
    """Keys of ``loss`` with ``name: dhn``."""

    alpha: float | None = 1.0  # α, scale of the inner products; None: 10/K
    code: Literal["tanh", "output"] = "tanh"  # z: squashed, or the output u itself
    lambda_quant: float = 0.1  # λ


@LOSSES.register("dhn", config=DHNConfig, needs=("image_code",))
class DHNLoss(PairwiseLoss):
    """DHN (AAAI 2016): pair likelihood on tanh codes with a log-cosh quantisation term."""

    config: DHNConfig

    def __init__(self, config: DHNConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        self.alpha = 10 / problem.bits if config.alpha is None else config.alpha

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``pair`` and ``quant``."""
        code = outputs.image_code
        if self.config.code == "tanh":
            code = code.tanh()
        rows, similar = self.partners(code, batch)
        pair = pair_likelihood(self.alpha * code @ rows.mT, similar).mean()
        quant = (code.abs() - 1).cosh().log().mean()
        return Terms(pair=pair, quant=self.config.lambda_quant * quant)
