"""What losses towards hash centres share: a centre of each class, and the vote of labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.base import HashLoss, Problem
from models.centers.hash_centers import centroid_vote, random_signs
from models.centers.recipes import make_centers


class CenterVoteLoss(HashLoss):
    """A loss towards hash centres, by the recipe ``config.centers``, that labels vote on."""

    centers: Tensor
    tie_break: Tensor

    def __init__(self, config: Any, problem: Problem) -> None:
        super().__init__(config, problem)
        self.register_buffer("centers", self.first_centers(problem))  # [C,K] of ±1
        self.register_buffer("tie_break", random_signs(1, problem.bits, problem.generator)[0])

    def first_centers(self, problem: Problem) -> Tensor:
        """Return the centres [C,K] of ±1 to start with."""
        return make_centers(self.config.centers, problem.n_classes, problem.bits, problem.generator)

    def targets(self, label: Tensor) -> Tensor:
        """Return the target centre [B,K] of every row's labels [B,C]."""
        with torch.no_grad():
            return centroid_vote(label, self.centers, self.tie_break)
