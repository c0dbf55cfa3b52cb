"""Hash centres: C codes of K bits, far apart, one per class; and the vote of several labels."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

REDRAWS = 20
"""Attempts at random centres before the last draw is taken (CSQ's released code)."""


def hadamard_matrix(order: int) -> Tensor:
    """Return the Sylvester Hadamard matrix [order, order] of ±1; ``order`` is a power of two.

    >>> hadamard_matrix(2)
    tensor([[ 1.,  1.],
            [ 1., -1.]])
    """
    matrix = torch.ones(1, 1)
    while len(matrix) < order:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


def hadamard_centers(n_classes: int, bits: int, generator: Generator) -> Tensor:
    """Return centres [C,K] of ±1: rows of [H; -H], then random balanced rows for classes beyond 2K.

    The random rows are redrawn, :data:`REDRAWS` times at most, until the smallest distance of any
    two centres exceeds K/4 and the mean is at least K/2. For K that is no power of two all rows are
    random.
    Source: CSQ (arXiv:1908.00347), algorithm 1.
    """
    power_of_two = bits & (bits - 1) == 0
    fixed = torch.empty(0, bits)
    if power_of_two:
        matrix = hadamard_matrix(bits)
        fixed = torch.cat([matrix, -matrix])[:n_classes]
    missing = n_classes - len(fixed)
    if missing == 0:
        return fixed
    for _ in range(REDRAWS):
        centers = torch.cat([fixed, balanced_rows(missing, bits, generator)])
        smallest, mean = center_distances(centers)
        if smallest > bits / 4 and mean >= bits / 2:
            break
    return centers


def balanced_rows(rows: int, bits: int, generator: Generator) -> Tensor:
    """Return random codes [rows,K] of ±1, each with ⌊K/2⌋ entries of -1."""
    order = torch.rand(rows, bits, generator=generator).argsort(1)
    return torch.where(order < bits // 2, -1.0, 1.0)


def random_signs(rows: int, bits: int, generator: Generator) -> Tensor:
    """Return fair random codes [rows,K] of ±1."""
    return torch.randint(0, 2, (rows, bits), generator=generator) * 2.0 - 1.0


def center_distances(centers: Tensor) -> tuple[float, float]:
    """Return the smallest and the mean Hamming distance over pairs of different centres [C,K].

    A single centre has no pair; its distances are given as K.
    """
    count, bits = centers.shape
    if count < 2:
        return float(bits), float(bits)
    distances = (bits - centers @ centers.T) / 2
    upper = torch.triu_indices(count, count, offset=1)
    pairs = distances[upper[0], upper[1]]
    return pairs.min().item(), pairs.mean().item()


def centroid_vote(label: Tensor, centers: Tensor, tie_break: Tensor) -> Tensor:
    """Return the target [B,K] of ±1: the sign of the sum of the centres of each row's labels.

    Args:
        label: [B,C] multi-hot.
        centers: [C,K] of ±1.
        tie_break: [K] of ±1, taken where the sum is 0.
    """
    votes = label.to(centers.dtype) @ centers
    return torch.where(votes == 0, tie_break.expand_as(votes), votes.sign())
