"""Memory banks: the newest code of every training row, for losses over a batch and all rows.

A batch alone has few pairs; with a memory bank each row of the batch is paired with all N training
rows. The rows of the bank are constants to the loss, computed when they were last in a batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Problem
from utils.errors import UserError


class MemoryBank(nn.Module):
    """A buffer ``rows`` [N,K] with one row per training item; it is part of the checkpoint."""

    rows: Tensor

    def __init__(self, problem: Problem) -> None:
        """Fill the bank with draws of N(0,1) from the problem's generator.

        Raises:
            UserError: the task has no training rows.
        """
        super().__init__()
        if problem.n_train < 1:
            raise UserError(
                "A memory holds one row per training item, but the problem states "
                f"n_train={problem.n_train}; give the number of training rows."
            )
        rows = torch.randn(problem.n_train, problem.bits, generator=problem.generator)
        self.register_buffer("rows", rows)

    @torch.no_grad()
    def write(self, index: Tensor, rows: Tensor) -> None:
        """Overwrite the rows ``index`` [B] with ``rows`` [B,K], detached."""
        self.rows[index] = rows.to(self.rows.dtype)


def train_labels(problem: Problem, method: str) -> Tensor:
    """Return the labels of all training rows, float [N,C], for comparison with a memory bank.

    Raises:
        UserError: the problem has none.
    """
    labels = problem.train_labels
    if labels is None or len(labels) != problem.n_train:
        received = "none" if labels is None else f"those of {len(labels)} rows"
        raise UserError(
            f"{method} compares each batch with all {problem.n_train} training rows and needs "
            f"their labels, but was given {received}; set Problem.train_labels."
        )
    return labels.float()


def memory_likelihood(memory: Tensor, code: Tensor, similar: Tensor, limit: float = 64.0) -> Tensor:
    """Return the mean negative log-likelihood of all pairs of bank rows and codes, a scalar.

    With θ = ½ clamp(m·b, -limit, limit), the mean of ``log(1 + e^θ) - S θ`` over the N·B pairs
    (:func:`models.losses.pair_terms.pair_likelihood`). The gradient reaches ``code`` alone.

    Args:
        memory: [N,K] constants; they may be overwritten before the backward pass.
        code: [B,K] codes of the batch.
        similar: [N,B] 1 where a pair shares a label, else 0.
        limit: where the inner product is cut; beyond it there is no gradient.
    """
    return _MemoryLikelihood.apply(memory, code, similar, limit)


class _MemoryLikelihood(torch.autograd.Function):
    """Value and gradient from one pass over [N,B], which is as large as the training set is."""

    @staticmethod
    def forward(ctx: Any, memory: Tensor, code: Tensor, similar: Tensor, limit: float) -> Tensor:
        inner = memory @ code.mT  # [N,B]
        inside = inner.abs() <= limit
        theta = inner.clamp_(-limit, limit).mul_(0.5)
        pairs = theta.numel()
        value = (F.softplus(theta).sum() - torch.vdot(similar.flatten(), theta.flatten())) / pairs
        if ctx.needs_input_grad[1]:
            slope = theta.sigmoid_().sub_(similar).mul_(inside)
            ctx.save_for_backward(slope.mT @ memory * (0.5 / pairs))  # [B,K]
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return None, gradients[0] * gradient, None, None
