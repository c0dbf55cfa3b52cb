"""SHC: Deep Hashing with Semantic Hash Centers for Image Retrieval.

L. Chen, R. Liu, Y. Zhou, X. Ma, Y. Chen, D. Zhang. ACM Transactions on Information Systems, 2025,
doi:10.1145/3749983, arXiv:2507.08404.

Classes that look alike get hash centres that lie close to each other. Three stages, done by runner
``shc``:

1. A classifier is trained; what it takes rows for, their own class aside, says how similar classes
   are (:mod:`models.centers.class_similarity`).
2. Centres follow these similarities under a least distance (:mod:`models.centers.semantic`).
3. A hashing network is drawn to the centres by CSQ's loss. With u the network's output, t = tanh(u)
   and c the target::

       L = mean BCE(½(t+1), ½(c+1)) + λ mean((|t| - 1)²)

With another runner the centres are CSQ's and so is the method.

Where paper and code differ (a key for each)
    * Cross-entropy of the classifier: the code hands it softmax(z) in place of the logits z, so
      that softmax is taken twice; ``cross_entropy: probabilities`` is our default too, as it also
      decides how flat similarities come out. Targets of several labels are not normalised.
    * Quantisation: the paper's figure writes ‖B - sign(B)‖ for the output B; the code takes it of
      t. ``quantizer: tanh`` or ``output``.
    * Own class of a row, and the weights of classes: see :mod:`models.centers.class_similarity`.

Deviations from the released code
    * Rows with several labels: the code takes the first label's centre; CSQ's vote over all of them
      is our default. ``several: vote`` or ``first``.
    * Stage 2 is a search of our own, whose objective is lower at the same distance or a greater
      one. The released one refuses every step when it has not reached its distance, and in some
      other cases: 10 classes at 32 and 64 bits end with the rows of a Hadamard matrix, as in CSQ.
    * The stages are kept by the hash of what they depend on; the code's files are named by dataset
      alone, and are taken for other classes too.
    * The classifier's rate falls to the ``floor`` of the schedule, as stage 3's does; the code's
      falls to 0: ``runner.classifier.floor=0``. Its logits for the similarity are of pictures as
      they are evaluated; the code's of augmented ones: ``runner.classifier.logits_of=augmented``.
    * The epoch is chosen on validation rows (``eval.select``); the code's best of every fifth, on
      the test queries, is ``eval.select=query eval.every=5``.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.registry import LOSSES, MODELS
from models.base import Batch, HashLoss, Outputs, Problem, Progress, Terms
from models.centers.hash_centers import hadamard_centers
from models.image.csq import CSQLoss
from models.image.image_hash import ImageHash, StandardizeConfig
from models.layers.heads import StandardizedHeadModel, small_linear
from models.losses.center_vote import Several
from models.losses.quantization import quantization_loss


@MODELS.register("shc", config=StandardizeConfig, provides=("image_code",))
class SHC(ImageHash):
    """SHC's hashing network: a linear hash layer that starts small."""

    def build_head(self, width: int) -> nn.Module:
        """Return Linear(width, K) with weights from N(0, 0.01²) and no bias at first."""
        return small_linear(width, self.problem.bits)


class Classifier(StandardizedHeadModel):
    """Stage 1: encoder and one linear layer to logits [B,C], under the name ``image_code``."""

    modalities = ("image",)

    def build_head(self, width: int) -> nn.Module:
        """Return Linear(width, C), as in :class:`SHC`."""
        return small_linear(width, self.problem.n_classes)


class ClassifierLoss(HashLoss):
    """Stage 1: -Σ y log softmax, of the logits or, as released, of their softmax."""

    def __init__(self, on: Literal["probabilities", "logits"]) -> None:
        """``on``: what the softmax is taken of."""
        super().__init__()
        self.on = on

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``cls``; ``image_code`` holds the logits."""
        logits = outputs.image_code
        value = logits.softmax(1) if self.on == "probabilities" else logits
        return Terms(cls=F.cross_entropy(value, batch.label.to(value.dtype)))


@dataclasses.dataclass(frozen=True)
class SHCConfig:
    """Keys of ``loss`` with ``name: shc``."""

    lambda_quant: float = 1e-4  # λ
    several: Several = "vote"  # target of a row with several labels
    quantizer: Literal["tanh", "output"] = "tanh"  # what is drawn to ±1


@LOSSES.register("shc", config=SHCConfig, needs=("image_code",))
class SHCLoss(CSQLoss):
    """SHC (TOIS 2025): pull codes to semantic hash centres; runner shc makes these."""

    config: SHCConfig

    def first_centers(self, problem: Problem) -> Tensor:
        """Return CSQ's centres [C,K], in whose place :meth:`set_centers` puts the semantic ones."""
        return hadamard_centers(problem.n_classes, problem.bits, problem.generator)

    @torch.no_grad()
    def set_centers(self, centers: Tensor) -> None:
        """Take the centres [C,K] of ±1 that classes are drawn to."""
        self.centers.copy_(centers)

    def quantization(self, output: Tensor) -> Tensor:
        """Return the mean of (|t| - 1)² or (|u| - 1)² of outputs u [B,K]."""
        return quantization_loss(output.tanh() if self.config.quantizer == "tanh" else output)
