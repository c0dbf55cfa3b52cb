"""What losses towards hash centres share: a centre of each class, and the vote of labels."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from models.base import HashLoss, Problem
from models.centers.hash_centers import centroid_vote, random_signs
from models.centers.recipes import make_centers
from models.losses.multilabel import first_label

Several = Literal["vote", "first"]
"""Which labels of a row decide its target: all of them by vote, or the first alone."""


class CenterVoteLoss(HashLoss):
    """A loss towards hash centres, by the recipe ``config.centers``, that labels vote on.

    With ``config.several: first`` only the first label of a row counts.
    """

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
            return centroid_vote(self.voters(label), self.centers, self.tie_break)

    def voters(self, label: Tensor) -> Tensor:
        """Return those of the labels [B,C] that count."""
        return first_label(label) if self.config.several == "first" else label
