"""Codes and labels for the losses of image hashing, and what their loops share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.base import Batch, HashLoss, Outputs, Problem, Progress, Terms

ROWS, CLASSES, BITS, TRAIN = 7, 4, 5, 12


def problem(seed: int = 0, bits: int = BITS, classes: int = CLASSES) -> Problem:
    return Problem(bits, classes, TRAIN, generator=torch.Generator().manual_seed(seed))


def example(seed: int = 1, rows: int = ROWS, bits: int = BITS) -> tuple[Tensor, Batch]:
    """Return codes that collect a gradient, and rows of which one has no label, one has two."""
    generator = torch.Generator().manual_seed(seed)
    code = torch.randn(rows, bits, generator=generator, dtype=torch.float64)
    label = torch.zeros(rows, CLASSES, dtype=torch.float64)
    label[torch.arange(rows), torch.arange(rows) % 3] = 1
    label[0, 3] = 1
    label[-1] = 0
    index = torch.randperm(TRAIN, generator=generator)[:rows]
    return code.requires_grad_(), Batch(label=label, index=index)


def terms_of(loss: HashLoss, code: Tensor, batch: Batch, epoch: int = 0) -> Terms:
    return loss(Outputs(image_code=code), batch, Progress(epoch=epoch))


def shared(a: Tensor, b: Tensor) -> bool:
    """Whether two rows of labels share one."""
    return any(x and y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def dot(a: Tensor, b: Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def likelihood(theta: float, similar: bool) -> float:
    """Return the negative log-likelihood of one pair."""
    chance = 1 / (1 + math.exp(-theta))
    return -math.log(chance if similar else 1 - chance)


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def entropy(logits: list[float], label: list[float]) -> float | None:
    """Return the cross-entropy of one row, its labels sharing equally; None without label."""
    total = sum(math.exp(z) for z in logits)
    chosen = [math.log(math.exp(z) / total) for z, y in zip(logits, label, strict=True) if y]
    return -mean(chosen) if chosen else None


def entropies(logits: Tensor, label: Tensor) -> float:
    """Return the mean of :func:`entropy` over the rows that have a label."""
    rows = zip(logits.tolist(), label.tolist(), strict=True)
    return mean([e for e in (entropy(z, y) for z, y in rows) if e is not None])


def close(actual: Tensor, expected: float) -> None:
    torch.testing.assert_close(actual.detach(), torch.tensor(expected, dtype=torch.float64))
