"""DTSH: Deep Supervised Hashing with Triplet Labels. X. Wang, Y. Shi, K. M. Kitani. ACCV 2016.

arXiv:1612.03900. An anchor should have a larger inner product with a row that shares a label than
with one that does not, by a margin; the likelihood of that is maximised over all triplets of the
batch. For an anchor a, its similar rows p (itself included) and dissimilar rows n::

    t_apn = clip(u_a·u_p - u_a·u_n - m, -100, 50)
    L     = mean_a mean_pn log(1 + exp(-t_apn))  +  λ mean((u - sign u)²)

over the anchors that have a row of either kind.

Memory is bounded: the triplets of a slice of the pairs (a,p) exist at a time, and of them only the
derivative by the inner products [B,B] is kept.

Deviations
    * The paper has ½ u_a·u_p, a margin that grows with K, and sums; both released PyTorch versions
      (DeepHash-pytorch, cisip-FIRe) have the whole product, m = 5, the clip, λ = 1 and means. We
      follow these: ``scale: 0.5`` and ``margin`` give the paper's.
    * Beyond the clip there is no gradient, as released.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from common.pairwise import share_label
from common.registry import LOSSES
from models.base import Batch, HashLoss, Outputs, Progress, Terms
from models.losses.quantization import quantization_loss

LOWEST, HIGHEST = -100.0, 50.0
"""Where the difference of a triplet is clipped."""

TRIPLETS_AT_ONCE = 2**16
"""Triplets computed at a time; a slice takes some 20 bytes for each."""


@dataclasses.dataclass(frozen=True)
class DTSHConfig:
    """Keys of ``loss`` with ``name: dtsh``."""

    margin: float = 5.0  # m
    scale: float = 1.0  # of the inner products
    lambda_quant: float = 1.0  # λ


@LOSSES.register("dtsh", config=DTSHConfig, needs=("image_code",))
class DTSHLoss(HashLoss):
    """DTSH (ACCV 2016): likelihood of all triplets of the batch, outputs drawn to their signs."""

    config: DTSHConfig

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``triplet`` and ``quant``."""
        code = outputs.image_code
        inner = self.config.scale * code @ code.mT  # [B,B]
        similar = share_label(batch.label, batch.label) > 0
        triplet = triplet_likelihood(inner, similar, self.config.margin)
        quant = quantization_loss(code)
        return Terms(triplet=triplet, quant=self.config.lambda_quant * quant)


def triplet_likelihood(inner: Tensor, similar: Tensor, margin: float) -> Tensor:
    """Return the mean negative log-likelihood of all triplets: over pairs, then over anchors.

    Args:
        inner: [B,M] inner products of anchors (rows) and candidates (columns).
        similar: bool [B,M], whether anchor and candidate share a label.
        margin: m.

    Returns:
        A scalar; 0 (with gradient 0) where no anchor has both kinds of candidates.
    """
    value, slope = _value_and_slope(inner.detach(), similar, margin)
    # the value of the loss with its gradient by `inner`
    return value + ((inner - inner.detach()) * slope).sum()


@torch.no_grad()
def _value_and_slope(inner: Tensor, similar: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Return the loss and its derivative by ``inner`` [B,M]."""
    count = (similar.sum(1) * (~similar).sum(1)).to(inner.dtype)  # [B] triplets of each anchor
    # of a triplet [B]; an anchor without one has nothing that this weighs
    weight = 1 / (count.clamp_min(1) * (count > 0).sum().clamp_min(1))
    anchors, positives = similar.nonzero(as_tuple=True)  # [P]
    reached = inner[anchors, positives] - margin
    value, slope = inner.new_zeros(()), torch.zeros_like(inner)
    size = max(TRIPLETS_AT_ONCE // max(inner.shape[1], 1), 1)
    for a, p, limit in zip(
        anchors.split(size), positives.split(size), reached.split(size), strict=True
    ):
        difference = limit[:, None] - inner[a]  # [P,M]
        inside = (difference >= LOWEST) & (difference <= HIGHEST)
        difference = difference.clamp(LOWEST, HIGHEST)
        share = weight[a, None] * ~similar[a]  # [P,M] 0 where the candidate is no negative
        value += (F.softplus(-difference) * share).sum()
        pull = (-difference).sigmoid() * inside * share
        slope.index_put_((a, p), -pull.sum(1), accumulate=True)
        slope.index_add_(0, a, pull)
    return value, slope
