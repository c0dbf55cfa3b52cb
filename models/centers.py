"""Hash centres: C codes of K bits, far apart, one per class; and the vote of several labels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

REDRAWS = 20
"""Attempts at random centres before the last draw is taken (CSQ's released code)."""

SPREAD_START = 61
"""Distance that `spread` centres are first asked for, in per cent of K (OrthoHash's release)."""

SPREAD_TRIES = 10_000
"""Rejected draws after which `spread` centres are asked for one per cent less."""

CenterKind = Literal["hadamard", "balanced", "bernoulli", "spread", "mds"]


def make_centers(
    kind: CenterKind | Literal["shc"], n_classes: int, bits: int, generator: Generator,
    similarity: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return centres [C,K] of ±1 by the recipe ``kind``, for any C and K.

    ``hadamard``: :func:`hadamard_centers`; ``balanced``: :func:`balanced_rows`; ``bernoulli``:
    :func:`random_signs`; ``spread``: :func:`spread_centers`; ``mds``: the largest least distance
    that a search finds; ``shc``: products that follow ``similarity`` [C,C], which it needs. The
    last two are in :mod:`models.semantic_centers`.
    """
    from models import semantic_centers  # which needs this module

    if kind == "shc":
        if similarity is None:
            raise ValueError("centres of kind 'shc' follow a class similarity; give one")
        return semantic_centers.semantic_centers(similarity, bits, generator)
    recipes = {
        "hadamard": hadamard_centers, "balanced": balanced_rows, "bernoulli": random_signs,
        "spread": spread_centers, "mds": semantic_centers.mds_centers,
    }  # fmt: skip
    return recipes[kind](n_classes, bits, generator)


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


def spread_centers(n_classes: int, bits: int, generator: Generator) -> Tensor:
    """Return random centres [C,K] of ±1 that keep a distance, by rejection.

    Fair random codes are drawn one after the other; one is kept if its Hamming distance to all
    that were kept is at least ρK. ρ starts at 0.61 and falls by 0.01 after every 10,000 rejected
    draws, to 0 if need be, so that any C and K come to an end.
    Source: the released code of OrthoHash (arXiv:2109.14449), which gives up below ρ = 0.2.
    """
    centers = torch.empty(0, bits)
    percent, tries = SPREAD_START, SPREAD_TRIES
    while len(centers) < n_classes:
        drawn = random_signs(min(tries, 1000), bits, generator)
        # distance (K - a·b)/2 ≥ ρK, in whole numbers
        limit = bits * (100 - 2 * percent) // 100
        fits = (drawn @ centers.T <= limit).all(1)
        for row in drawn[fits]:
            if len(centers) < n_classes and bool((centers @ row <= limit).all()):
                centers = torch.cat([centers, row[None]])
                tries += 1  # no rejection
        tries -= len(drawn)
        if tries == 0:
            percent, tries = max(percent - 1, 0), SPREAD_TRIES
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
