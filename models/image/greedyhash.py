"""GreedyHash: Towards Fast Optimization for Accurate Hash Coding in CNN.

S. Su, C. Zhang, K. Han, Y. Tian. NeurIPS 2018.

Signs are used in training as in retrieval: a linear classifier is trained on the code itself, and
its gradient goes to the real-valued output as if the sign were not there. With y the labels::

    b = sign(u),   dL/du := dL/db
    L = CE(W b, y)  +  λ mean(| |u| - 1 |³)

A row with several labels gives each an equal share of the cross-entropy (``labels: first``: only
its first one counts, as in DeepHash-pytorch).

Deviations
    * λ = 0.1 and no bias, as in the authors' code and DeepHash-pytorch; ``loss.bias=true
      loss.lambda_quant=1`` is cisip-FIRe's.
    * sign(0) = +1, where the references have 0.
    * A row without label is left out of the cross-entropy; the reference takes it for class 0.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from torch import Tensor, nn

from common.codes import sign
from common.registry import LOSSES
from models.base import Batch, HashLoss, Outputs, Problem, Progress, Terms
from models.losses.multilabel import first_label, multilabel_cross_entropy


@dataclasses.dataclass(frozen=True)
class GreedyHashConfig:
    """Keys of ``loss`` with ``name: greedyhash``."""

    lambda_quant: float = 0.1  # λ
    power: float = 3.0  # of the distance to ±1
    bias: bool = False  # of the classifier
    labels: Literal["all", "first"] = "all"  # which labels of a row are to be predicted


@LOSSES.register(
    "greedyhash", config=GreedyHashConfig, needs=("image_code",), groups={"classifier": {}}
)
class GreedyHashLoss(HashLoss):
    """GreedyHash (NeurIPS 2018): a classifier on signs with a straight-through gradient."""

    config: GreedyHashConfig
    group = "classifier"

    def __init__(self, config: GreedyHashConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        self.classifier = nn.Linear(problem.bits, problem.n_classes, bias=config.bias)

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``cls`` and ``quant``."""
        code = outputs.image_code
        label = batch.label if self.config.labels == "all" else first_label(batch.label)
        entropy = multilabel_cross_entropy(self.classifier(straight_through_sign(code)), label)
        quant = (code.abs() - 1).abs().pow(self.config.power).mean()
        return Terms(cls=entropy, quant=self.config.lambda_quant * quant)


def straight_through_sign(code: Tensor) -> Tensor:
    """Return the signs of ``code``, exactly ±1; the gradient passes unchanged."""
    return sign(code) + (code - code.detach())
