"""Losses over pairs: the pairs of a batch, and their means.

The pairs are those of the batch (``pairs: batch``, a row with itself included), or every row of the
batch with the newest code of each training row (``pairs: memory``).
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn

from common.pairwise import share_label
from models.base import Batch, HashLoss, Problem, Terms
from models.losses.memory_bank import MemoryBank
from models.losses.pair_terms import masked_mean


@dataclasses.dataclass(frozen=True)
class PairwiseConfig:
    """Keys of ``loss`` that all losses over pairs have."""

    pairs: Literal["batch", "memory"] = "batch"  # memory: with all training rows


class LabeledMemoryBank(nn.Module):
    """A memory bank with the labels of the training rows seen so far; part of the checkpoint.

    A row not seen yet has code 0 and no label, so that it counts as dissimilar to every row, as in
    DeepHash-pytorch.
    """

    label: Tensor

    def __init__(self, problem: Problem) -> None:
        """Start with no row seen.

        Raises:
            UserError: the task has no training rows.
        """
        super().__init__()
        self.codes = MemoryBank(problem)
        self.codes.rows.zero_()
        label = torch.zeros(problem.n_train, problem.n_classes, dtype=torch.bool)
        self.register_buffer("label", label)  # [N,C]

    @torch.no_grad()
    def write(self, code: Tensor, batch: Batch) -> None:
        """Overwrite the rows ``batch.index`` with ``code`` [B,K], detached, and their labels."""
        self.codes.write(batch.index, code)
        self.label[batch.index] = batch.label > 0


class PairwiseLoss(HashLoss):
    """A loss over pairs of rows; its config derives from :class:`PairwiseConfig`."""

    config: PairwiseConfig

    def __init__(self, config: PairwiseConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        self.memory = LabeledMemoryBank(problem) if config.pairs == "memory" else None

    def partners(self, code: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the codes that the batch is paired with, and which pairs are similar.

        In training, the batch is written to the memory bank first; other rows have no row in it.

        Returns:
            [M,K]: ``code`` [B,K] itself, or the N rows of the bank, which are constants; and [B,M]
            of 1 where a pair shares a label, else 0, in the dtype of ``code``.
        """
        if self.memory is None:
            rows, label = code, batch.label
        else:
            if self.training:
                self.memory.write(code, batch)
            rows, label = self.memory.codes.rows.to(code.dtype), self.memory.label
        return rows, share_label(batch.label, label).to(code.dtype)


def balanced_terms(loss: Tensor, similar: Tensor) -> Terms:
    """Return the means over similar and over dissimilar pairs as two terms of equal weight.

    Args:
        loss: [B,M] loss of every pair.
        similar: [B,M] 1 where a pair shares a label, else 0; a kind without a pair gives 0.
    """
    return Terms(similar=masked_mean(loss, similar), dissimilar=masked_mean(loss, 1 - similar))
