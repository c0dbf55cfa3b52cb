"""CSQ: Central Similarity Quantization for Efficient Image and Video Retrieval.

L. Yuan, T. Wang, X. Zhang, F. Tay, Z. Jie, W. Liu, J. Feng. CVPR 2020, arXiv:1908.00347.

Every class has a hash centre, centres lie far apart (rows of a Hadamard matrix), and codes are
pulled to the centre of their label. With t = tanh(u) and c the target centre::

    L = mean BCE(½(t+1), ½(c+1)) + λ mean((|t| - 1)²)

A row with several labels takes the sign of the sum of its centres; bits where that is 0 take those
of one fixed random vector.

Deviations from the released code
    * DeepHash-pytorch has λ = 1e-4 (our default), cisip-FIRe 1e-3; the rest of the loss is the
      same.
    * More classes than 2K: both draw the missing centres at random and keep the first draw that is
      far enough apart; so do we, from the run's own generator instead of Python's global one.
    * DeepHash-pytorch has the vote on NUS-WIDE and COCO; on other datasets a row's first label
      alone counts, which is ``several: first``.
    * K that is no power of two: the reference refuses it; we take random balanced centres. Other
      centres can be chosen (``centers``): cisip-FIRe's are ``bernoulli``.
"""

from __future__ import annotations

import dataclasses

import torch.nn.functional as F
from torch import Tensor

from common.registry import LOSSES
from models.base import Batch, Outputs, Progress, Terms
from models.centers.recipes import CenterKind
from models.losses.center_vote import CenterVoteLoss, Several
from models.losses.quantization import quantization_loss


@dataclasses.dataclass(frozen=True)
class CSQConfig:
    """Keys of ``loss`` with ``name: csq``."""

    lambda_quant: float = 1e-4  # λ
    centers: CenterKind = "hadamard"  # how they are made, see models/centers/recipes.py
    several: Several = "vote"  # target of a row with several labels


@LOSSES.register("csq", config=CSQConfig, needs=("image_code",))
class CSQLoss(CenterVoteLoss):
    """CSQ (CVPR 2020): pull codes to the hash centre of their label."""

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``center`` and ``quant``."""
        code = outputs.image_code.tanh()
        target = self.targets(batch.label).to(code.dtype)  # [B,K]
        center = F.binary_cross_entropy((code + 1) / 2, (target + 1) / 2)
        quant = self.quantization(outputs.image_code)
        return Terms(center=center, quant=self.config.lambda_quant * quant)

    def quantization(self, output: Tensor) -> Tensor:
        """Return the mean of (|t| - 1)² of outputs u [B,K]."""
        return quantization_loss(output.tanh())
