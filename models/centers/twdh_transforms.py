r"""TwDH's constants: hash centres of every length, and transforms from the long code to short ones.

A code is written in two-way form as 2K values, (1,0) for -1 and (0,1) for +1, or probabilities in
their place (:mod:`models.layers.pair_softmax`). The target of a set of labels Y under centres A
[C,K] is the vote t(Y,A) = sign(Σ_{c∈Y} A_c). A transform M [2L,2S] takes a row P of long pairs to
short pairs Q = softmax over pairs of P M. With u = p₁ - p₀ of the long code, three recipes:

``regression`` (ours)
    Ridge regression of short targets on long ones over the training labels, 0 where a vote is
    tied (the mean over tie breaks)::

        X = t(Y,A)   T = t(Y,A_s)   W = (XᵀX/N + λI)⁻¹ XᵀT/N

``projection`` (ours)
    W = AᵀA_s/L, exact on the centres, since distinct rows of a Hadamard matrix are orthogonal:
    A Aᵀ = L I. It reads no labels.
``released`` (the authors')
    BertAdam on batches of training label sets, both targets with random tie breaks. With d the
    differences of the pairs Q::

        [1 - mean(d²)] + BCE(Q, t(Y,A_s)) + α Σ|M|

    It ends early when the C centres themselves map without loss. Q is PyTorch's softmax here, not
    the sigmoid of the other recipes: equal values, other gradients in float32, see
    :func:`plain_pair_softmax`.

W becomes M = W ⊗ κ/2 [[1,-1],[-1,1]], so that d = tanh(κ uW / 2).

Why not ``released``: its penalty is a sum over 4LS entries, while the likelihood is a mean over
2S, so that the penalty rules once the short code is long. On Flickr8k (L = 512, the authors'
centres, means of five) mean |M| ends at .35, .012 and .003 for 16, 32 and 64 bits, and 100, 97 and
78 % of the centres' bits are reproduced; with α = 0 it is 100 % at 64 bits, too. mAP is given in
:mod:`models.cross_modal.twdh`.
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from common.optimizers import BertAdam
from common.schedules import WarmupConfig, warmup_cosine
from models.base import Terms
from models.centers.hash_centers import (
    centroid_vote,
    hadamard_centers,
    hadamard_matrix,
    random_signs,
)
from utils.errors import UserError

SHARPNESS = 4.0
"""κ: how far the pairs of a short code are apart where the long code is a centre's."""


def long_centers(n_classes: int, bits: int, generator: Generator) -> Tensor:
    """Return centres [C,L] of ±1: distinct rows of a Hadamard matrix in random order.

    The row of ones is never taken, so that every centre is balanced and any two differ in L/2 bits.

    Raises:
        UserError: L is no power of two, or there are more classes than rows.
    """
    if bits & (bits - 1) or n_classes > bits - 1:
        enough = 1 << n_classes.bit_length()
        raise UserError(
            f"model.long_bits={bits} is not accepted for {n_classes} classes; a power of two above "
            f"the number of classes is needed: give model.long_bits={max(enough, 512)}."
        )
    rows = torch.randperm(bits - 1, generator=generator)[:n_classes] + 1
    return hadamard_matrix(bits)[rows]


def short_centers(n_classes: int, bits: int, generator: Generator) -> Tensor:
    """Return centres [C,S] of ±1 for a short code.

    Random distinct rows of H, of [H; -H] where H has too few, without the constant ones; where
    these are too few as well, or S is no power of two, CSQ's (:func:`~models.centers.hash_centers.
    hadamard_centers`). Rows in their order would waste bits: the first 32 rows of the Hadamard
    matrix of order 64 have only 32 distinct columns.
    """
    rows = hadamard_matrix(bits)[1:] if bits & (bits - 1) == 0 else torch.empty(0, bits)
    if n_classes > len(rows):
        rows = torch.cat([rows, -rows])
    if n_classes > len(rows):
        return hadamard_centers(n_classes, bits, generator)
    return rows[torch.randperm(len(rows), generator=generator)[:n_classes]]


def two_way(code: Tensor) -> Tensor:
    """Return ±1 [B,K] as pairs [B,2K]: (1,0) for -1, (0,1) for +1, halves for 0.

    >>> two_way(torch.tensor([[-1.0, 1.0]]))
    tensor([[1., 0., 0., 1.]])
    """
    return torch.stack([(1 - code) / 2, (1 + code) / 2], 2).flatten(1)


def reproduced(transform: Tensor, long: Tensor, short: Tensor) -> float:
    """Return the share of the bits of ``short`` [C,S] that the centres ``long`` [C,L] map to."""
    pairs = two_way(long) @ transform
    return ((pairs[:, 1::2] > pairs[:, 0::2]) == (short > 0)).float().mean().item()


def as_transform(weight: Tensor) -> Tensor:
    """Return the transform [2L,2S] whose short differences are tanh(κ u W / 2), W [L,S]."""
    signs = weight.new_tensor([[1.0, -1.0], [-1.0, 1.0]])
    return torch.kron(weight.contiguous(), SHARPNESS / 2 * signs)


def projection(long: Tensor, short: Tensor) -> Tensor:
    """Return the transform [2L,2S] that is exact on the centres ``long`` [C,L], ``short`` [C,S]."""
    return as_transform(long.T @ short / long.shape[1])


def regression(long: Tensor, short: Tensor, label: Tensor, ridge: float) -> Tensor:
    """Return the transform [2L,2S] that predicts short targets best from long ones.

    Args:
        long: [C,L] centres.
        short: [C,S] centres.
        label: [N,C] of the training rows; rows without label weigh nothing.
        ridge: λ > 0.
    """
    sets, counts = label.to(long.dtype).unique(dim=0, return_counts=True)
    source, target = (sets @ long).sign(), (sets @ short).sign()  # [n,L], [n,S]
    weighted = (source * counts[:, None]).T.double() / len(label)  # [L,n]
    gram = weighted @ source.double()
    gram.diagonal().add_(ridge)
    return as_transform(torch.linalg.solve(gram, weighted @ target.double()).to(long.dtype))


def plain_pair_softmax(logits: Tensor) -> Tensor:
    """Return :func:`~models.layers.pair_softmax.pair_softmax` [B,2S] with softmax's own gradient.

    BCE's gradient at p ≈ 1 with target 0 is 1/(1-p); softmax's backward pass takes the mean over
    the pair from it, two such numbers whose difference is of order 1. In float32 that is some
    percent off where logits differ by 15. From 17 on p is 1, BCE puts 10¹² for 1/(1-p), and the
    smaller probability q of the pair gets a gradient of -1 - 10¹² q instead of -1. The sigmoid's
    backward pass has neither. A matrix from (-1,1) starts with such pairs from L = 64 on, which
    then decide the direction of a gradient clipped by its norm: repeating the authors' training
    takes their form.
    """
    return logits.unflatten(1, (-1, 2)).softmax(2).flatten(1)


@dataclasses.dataclass(frozen=True)
class ReleasedConfig:
    """The authors' recipe; their command line has ``lr`` 0.1, their default was 0.001."""

    lr: float = 0.1  # of its optimiser
    weight_decay: float = 0.2  # likewise
    warmup: float = 0.1  # share of the steps
    l1: float = 1e-3  # α, weight of the sum of absolute entries
    epochs: int = 100  # of the training rows
    batch_size: int = 200  # rows


class ReleasedTransform:
    """A transform while the authors' recipe trains it.

    Attributes:
        matrix: [2L,2S], a leaf that collects a gradient.
    """

    def __init__(self, matrix: Tensor, total_steps: int, config: ReleasedConfig) -> None:
        """Start at ``matrix``; the learning rate is planned over ``total_steps``."""
        self.matrix = matrix.clone().requires_grad_()
        self.total_steps = total_steps
        self.config = config
        self.steps = 0
        self.optimizer = BertAdam([self.matrix], config.lr, weight_decay=config.weight_decay)

    def terms(self, long: Tensor, short: Tensor) -> Terms:
        """Return ``quan``, ``bce`` and ``l1`` for two-way targets [B,2L] and [B,2S]."""
        pairs = plain_pair_softmax(long @ self.matrix)
        return Terms(
            quan=1 - (pairs[:, 1::2] - pairs[:, 0::2]).pow(2).mean(),
            bce=F.binary_cross_entropy(pairs, short),
            l1=self.config.l1 * self.matrix.abs().sum(),
        )

    def step(self, long: Tensor, short: Tensor) -> Terms:
        """Take one step on a batch of two-way targets; return the terms before it."""
        factor = warmup_cosine(WarmupConfig(self.config.warmup), self.steps, self.total_steps, 0, 1)
        self.optimizer.param_groups[0]["lr"] = self.config.lr * factor
        terms = self.terms(long, short)
        self.optimizer.zero_grad()
        terms.total().backward()
        self.optimizer.step()
        self.steps += 1
        return Terms(**{name: term.detach() for name, term in terms.items()})


def released(
    long: Tensor, short: Tensor, label: Tensor, config: ReleasedConfig, generator: Generator
) -> tuple[Tensor, dict[str, list[float]]]:
    """Train a transform as the authors do.

    Args:
        long: [C,L] centres.
        short: [C,S] centres.
        label: [N,C] of the training rows.
        config: the recipe.
        generator: of the initial matrix, uniform in (-1,1), the order of rows and the tie breaks.

    Returns:
        The transform [2L,2S], and per epoch the mean ``loss`` and the share of ``centre_bits``
        that the centres reproduce.
    """
    label = label.to(long.dtype)
    wide, narrow = long.shape[1], short.shape[1]
    start = torch.rand(2 * wide, 2 * narrow, generator=generator) * 2 - 1
    batches = math.ceil(len(label) / config.batch_size)
    training = ReleasedTransform(start.to(long), batches * config.epochs, config)

    def target(rows: Tensor, centers: Tensor) -> Tensor:
        tie_break = random_signs(1, centers.shape[1], generator)[0].to(centers)
        return two_way(centroid_vote(rows, centers, tie_break))

    history: dict[str, list[float]] = {"loss": [], "centre_bits": []}
    for _ in range(config.epochs):
        order = torch.randperm(len(label), generator=generator).to(label.device)
        losses = []
        for chosen in order.split(config.batch_size):
            rows = label[chosen]
            losses.append(training.step(target(rows, long), target(rows, short)).total())
        history["loss"].append(torch.stack(losses).mean().item())
        history["centre_bits"].append(reproduced(training.matrix.detach(), long, short))
        if history["centre_bits"][-1] == 1.0:
            break
    return training.matrix.detach(), history
