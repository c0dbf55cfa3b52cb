"""HashNet: Deep Learning to Hash by Continuation. Z. Cao, M. Long, J. Wang, P. S. Yu. ICCV 2017.

Codes are t = tanh(β u) with a β that grows during training, so that they approach signs. Pairs of
the batch (a row with itself included) follow a weighted likelihood; with θ = α t tᵀ and S = 1 for
pairs that share a label::

    L = mean_{S=1} [log(1+e^θ) - θ]  +  mean_{S=0} log(1+e^θ),      β = √(⌊epoch / 20⌋ + 1)

``pairs: memory`` forms the pairs between the batch and all training rows instead, with the t of
their last visit.

Deviations
    * The paper weights pairs by class imbalance over the whole training set; the released PyTorch
      versions (DeepHash-pytorch α = 0.1, cisip-FIRe α = 1) balance inside the batch as above. We
      follow these, with DeepHash-pytorch's α.
    * A batch without any dissimilar (or similar) pair made the reference NaN; the empty mean is 0
      here.
"""

from __future__ import annotations

import dataclasses
import math

from common.registry import LOSSES
from models.base import Batch, Outputs, Progress, Terms
from models.losses.pair_loss import PairwiseConfig, PairwiseLoss, balanced_terms
from models.losses.pair_terms import pair_likelihood


@dataclasses.dataclass(frozen=True)
class HashNetConfig(PairwiseConfig):
    """Keys of ``loss`` with ``name: hashnet``."""

    alpha: float = 0.1  # α, scale of the inner products
    epochs_per_step: int = 20  # epochs between steps of β


@LOSSES.register("hashnet", config=HashNetConfig, needs=("image_code",))
class HashNetLoss(PairwiseLoss):
    """HashNet (ICCV 2017): weighted pair likelihood on tanh codes whose scale grows."""

    config: HashNetConfig

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``similar`` and ``dissimilar``."""
        beta = math.sqrt(progress.epoch // self.config.epochs_per_step + 1)
        code = (beta * outputs.image_code).tanh()
        rows, similar = self.partners(code, batch)
        loss = pair_likelihood(self.config.alpha * code @ rows.mT, similar)  # [B,M]
        return balanced_terms(loss, similar)
