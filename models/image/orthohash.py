"""OrthoHash: deep hashing with one cosine loss and fixed, nearly orthogonal centres.

"One Loss for All: Deep Hashing with a Single Cosine Similarity based Learning Objective."
J. T. Hoe, K. W. Ng, T. Zhang, C. S. Chan, Y.-Z. Song, T. Xiang. NeurIPS 2021, arXiv:2109.14449.

Classes have fixed, nearly orthogonal hash centres c. Codes are classified by their cosine to the
centres with a margin, which also makes them close to their signs: no quantisation term is needed.
With θ_ic the angle between u_i and c, and y the labels::

    cosine:  z_ic = s (cos θ_ic - m y_ic)          arc:  z_ic = s cos(θ_ic + m y_ic)
    L = CE(z, y)  +  λ mean(1 - cos(u, sign u)),       λ = 0 by default

A row with several labels gives each an equal share of the cross-entropy and has all its margins.

Head: a linear layer without bias, then batch normalisation, so that every bit is balanced over the
training rows; its output is the code. The loss takes the codes of any other model too.

Deviations
    * The paper has a cosine margin; its code has the arc margin beside it.
    * Centres: the paper draws fair random bits or takes rows of a Hadamard matrix; the authors'
      code also draws codes that keep a distance. The last is our default (``centers: spread``),
      since random bits may put two classes close together where codes are short.
    * A batch of one row cannot be normalised by itself: it takes the running statistics.
    * Cosines of ±1 are cut by 10⁻⁶ in the arc margin, whose slope is infinite there.
    * A row without label is left out of the cross-entropy.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from common.registry import LOSSES, MODELS
from models.base import Batch, HashLoss, Outputs, Problem, Progress, Terms
from models.centers.recipes import CenterKind, make_centers
from models.image.image_hash import ImageHash, StandardizeConfig
from models.layers.heads import BatchNorm
from models.losses.multilabel import margin_cosine, multilabel_cross_entropy

MARGINS = {"cosine": 0.3, "arc": 0.2}
CLOSEST = 1 - 1e-6  # cosine, of the arc margin


@MODELS.register("orthohash", config=StandardizeConfig, provides=("image_code",))
class OrthoHash(ImageHash):
    """OrthoHash's network: a linear hash layer without bias and batch normalisation.

    Under several processes the batch statistics are of each process's own rows, and the running
    ones of the first process's, so training ends a little elsewhere than in one.
    """

    def build_head(self, width: int) -> nn.Module:
        """Return Linear (PyTorch's default initialisation) and batch normalisation."""
        bits = self.problem.bits
        return nn.Sequential(nn.Linear(width, bits, bias=False), BatchNorm(bits))


@dataclasses.dataclass(frozen=True)
class OrthoHashConfig:
    """Keys of ``loss`` with ``name: orthohash``."""

    form: Literal["cosine", "arc"] = "cosine"  # of the margin
    margin: float | None = None  # m; None: 0.3 for the cosine, 0.2 for the arc
    scale: float = 8.0  # s
    centers: CenterKind = "spread"  # how they are made, see models/centers/recipes.py
    lambda_quant: float = 0.0  # λ


@LOSSES.register("orthohash", config=OrthoHashConfig, needs=("image_code",))
class OrthoHashLoss(HashLoss):
    """OrthoHash (NeurIPS 2021): margin softmax over cosines to fixed hash centres."""

    config: OrthoHashConfig
    centers: Tensor

    def __init__(self, config: OrthoHashConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        self.margin = MARGINS[config.form] if config.margin is None else config.margin
        centers = make_centers(config.centers, problem.n_classes, problem.bits, problem.generator)
        self.register_buffer("centers", centers)  # [C,K] of ±1

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``cls`` and ``quant``."""
        code = F.normalize(outputs.image_code, dim=1)
        cosine = code @ F.normalize(self.centers.to(code.dtype), dim=1).mT  # [B,C]
        label = batch.label.to(code.dtype)
        cosine = margin_cosine(cosine, label, self.config.form, self.margin, CLOSEST)
        # cos(u, sign u) = Σ|u| / (‖u‖ √K)
        quant = 1 - code.abs().sum(1).mean() / code.shape[1] ** 0.5
        return Terms(
            cls=multilabel_cross_entropy(self.config.scale * cosine, label),
            quant=self.config.lambda_quant * quant,
        )
