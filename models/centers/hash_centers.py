"""Hash centres: C codes of K bits, far apart, one per class; and the vote of several labels."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Generator, Tensor

REDRAWS = 20
"""Attempts at random centres before the last draw is taken (CSQ's released code)."""

HOPELESS = 50.0
"""Expected number of too close pairs of random centres, above which no draw is tested."""

SPREAD_START = 61
"""First distance of `spread` centres, in per cent of K (OrthoHash's release)."""

SPREAD_TRIES = 10_000
"""Rejected draws after which the distance of `spread` centres falls by one per cent."""

_BLOCK = 2**23  # inner products that are held at once


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
    random. Where so many pairs are expected to be too close that no draw can pass, the last draw is
    taken and the others are not tested.
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
    hopeless = _expected_close_pairs(missing, len(fixed), bits) > HOPELESS
    for _ in range(REDRAWS - 1):
        numbers = torch.rand(missing, bits, generator=generator)
        if hopeless:
            continue
        centers = torch.cat([fixed, _balanced(numbers)])
        if far_apart(centers, bits / 4):
            return centers
    return torch.cat([fixed, balanced_rows(missing, bits, generator)])


def _expected_close_pairs(rows: int, fixed: int, bits: int) -> float:
    """Return how many pairs with a random balanced row have a distance of K/4 or less, on average.

    Two balanced codes differ in 2j bits with the chance binom(w,j) binom(K-w,j) / binom(K,w) for
    w = ⌊K/2⌋ entries of -1. Of the fixed rows of [H; -H] all are balanced but two, which no
    balanced code is close to.
    """
    ones = bits // 2
    ways = sum(math.comb(ones, j) * math.comb(bits - ones, j) for j in range(bits // 8 + 1))
    pairs = rows * (rows - 1) // 2 + rows * max(fixed - 2, 0)
    return pairs * (ways / math.comb(bits, ones))


def spread_centers(n_classes: int, bits: int, generator: Generator) -> Tensor:
    """Return random centres [C,K] of ±1 that keep a distance, by rejection.

    Fair random codes are drawn one after the other; one is accepted if its Hamming distance to all
    accepted ones is at least ρK. ρ starts at 0.61 and falls by 0.01 after every 10,000 rejected
    draws, down to 0, so that the search ends for any C and K.
    Source: the released code of OrthoHash (arXiv:2109.14449), which gives up below ρ = 0.2.
    """
    centers = torch.empty(0, bits)
    percent, tries = SPREAD_START, SPREAD_TRIES
    while len(centers) < n_classes:
        draws = random_signs(min(tries, 1000), bits, generator)
        # distance (K - a·b)/2 ≥ ρK, in whole numbers
        limit = bits * (100 - 2 * percent) // 100
        fitting = draws[(draws @ centers.T <= limit).all(1)]
        accepted = _first_apart(fitting, limit)[: n_classes - len(centers)]
        centers = torch.cat([centers, accepted])
        tries += len(accepted) - len(draws)  # those that were rejected
        if tries == 0:
            percent, tries = max(percent - 1, 0), SPREAD_TRIES
    return centers


def _first_apart(codes: Tensor, limit: int) -> Tensor:
    """Return those of [N,K] whose inner products with all accepted before are ≤ ``limit``."""
    allowed = codes @ codes.T <= limit
    free = torch.ones(len(codes), dtype=torch.bool)
    accepted = []
    for row in range(len(codes)):
        if free[row]:
            accepted.append(row)
            free &= allowed[row]
    return codes[accepted]


def balanced_rows(rows: int, bits: int, generator: Generator) -> Tensor:
    """Return random codes [rows,K] of ±1, each with ⌊K/2⌋ entries of -1."""
    return _balanced(torch.rand(rows, bits, generator=generator))


def _balanced(numbers: Tensor) -> Tensor:
    """Return codes [N,K] of ±1: -1 where the permutation that sorts the row is below ⌊K/2⌋."""
    return torch.where(numbers.argsort(1) < numbers.shape[1] // 2, -1.0, 1.0)


def random_signs(rows: int, bits: int, generator: Generator) -> Tensor:
    """Return fair random codes [rows,K] of ±1."""
    return torch.randint(0, 2, (rows, bits), generator=generator) * 2.0 - 1.0


def center_distances(centers: Tensor) -> tuple[float, float]:
    """Return the smallest and the mean Hamming distance over pairs of different centres [C,K].

    A single centre has no pair; its distances are given as K. Memory is bounded for any C.
    """
    count, bits = centers.shape
    if count < 2:
        return float(bits), float(bits)
    return (bits - max(_largest_products(centers))) / 2, _mean_distance(centers)


def far_apart(centers: Tensor, more_than: float) -> bool:
    """Return whether all pairs of [C,K] are farther apart than that and by K/2 on average.

    The test ends at the first block with a pair that is not.
    """
    count, bits = centers.shape
    if count < 2:
        return bits > more_than
    if _mean_distance(centers) < bits / 2:
        return False
    return all((bits - largest) / 2 > more_than for largest in _largest_products(centers))


def _mean_distance(centers: Tensor) -> float:
    """Return the mean over pairs of different centres: Σ_{i≠j} a_i·a_j = ‖Σ a_i‖² - Σ ‖a_i‖²."""
    count, bits = centers.shape
    total = centers.sum(0, dtype=torch.float64).square().sum()
    squares = centers.square().sum(dtype=torch.float64)
    return (bits - (total - squares).item() / (count * (count - 1))) / 2


def _largest_products(centers: Tensor) -> Iterator[float]:
    """Yield the largest inner product of two different centres, of block after block of rows."""
    rows = max(_BLOCK // len(centers), 1)
    for start in range(0, len(centers), rows):
        block = centers[start : start + rows] @ centers[start:].T  # pairs i ≤ j
        yield block.fill_diagonal_(-torch.inf).max().item()


def centroid_vote(label: Tensor, centers: Tensor, tie_break: Tensor) -> Tensor:
    """Return the target [B,K] of ±1: the sign of the sum of the centres of each row's labels.

    Args:
        label: [B,C] multi-hot.
        centers: [C,K] of ±1.
        tie_break: [K] of ±1, taken where the sum is 0.
    """
    votes = label.to(centers.dtype) @ centers
    return torch.where(votes == 0, tie_break.expand_as(votes), votes.sign())
