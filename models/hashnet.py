"""HashNet: Deep Learning to Hash by Continuation. Z. Cao, M. Long, J. Wang, P. S. Yu. ICCV 2017.

Codes are t = tanh(β u) with a β that grows during training, so that they approach signs. Pairs of
the batch (a row with itself included) follow a weighted likelihood; with θ = α t tᵀ and S = 1 for
pairs that share a label::

    L = mean_{S=1} [log(1+e^θ) - θ]  +  mean_{S=0} log(1+e^θ),      β = √(⌊epoch / 20⌋ + 1)

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

from common.pairwise import share_label
from common.registry import LOSSES
from models.base import Batch, HashLoss, Outputs, Progress, Terms
from models.pairs import masked_mean, pair_likelihood


@dataclasses.dataclass(frozen=True)
class HashNetConfig:
    """Keys of ``loss`` with ``name: hashnet``."""

    alpha: float = 0.1  # α, scale of the inner products
    epochs_per_step: int = 20  # epochs between steps of β


@LOSSES.register("hashnet", config=HashNetConfig, needs=("image_code",))
class HashNetLoss(HashLoss):
    """HashNet (ICCV 2017): weighted pair likelihood on tanh codes whose scale grows."""

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``similar`` and ``dissimilar``."""
        beta = math.sqrt(progress.epoch // self.config.epochs_per_step + 1)
        code = (beta * outputs.image_code).tanh()
        similar = share_label(batch.label, batch.label).to(code.dtype)  # [B,B]
        loss = pair_likelihood(self.config.alpha * code @ code.T, similar)
        return Terms(similar=masked_mean(loss, similar), dissimilar=masked_mean(loss, 1 - similar))
