"""Similarity of two sets of vectors, for all pairs of sets in two batches (DIMCH, UMoED).

Two views of a set. As a *bag*: every member of one set is compared with every member of the other,
and the [M,N] cosines of a pair of sets are reduced to one number. As a *sequence*: member m is
compared with member m alone.

Memory is that of the cosine matrix, (AM) x (BN); there is no loop over sets.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from common.pairwise import pairwise_euclidean

BagForm = Literal["smooth_chamfer", "chamfer", "max", "avg"]


def member_products(first: Tensor, second: Tensor) -> Tensor:
    """Return the inner products of all members of all sets; cosines if the members are unit.

    Args:
        first: [A,M,K] sets of M members.
        second: [B,N,K] sets of N members.

    Returns:
        [A,M,B,N].
    """
    products = first.flatten(0, 1) @ second.flatten(0, 1).mT  # [AM,BN]
    return products.reshape(*first.shape[:2], *second.shape[:2])


def smooth_chamfer(
    similarity: Tensor, temperature: float = 16.0, scale: float = 1.0, denominator: float = 2.0
) -> Tensor:
    """Return the smooth Chamfer similarity, a softened mean of each member's best match.

    With t the temperature, r the scale and d the denominator::

        s_ij = (1/d) [ (1/(M t r)) Σ_m log Σ_n exp(t r c_mn) + (1/(N t)) Σ_n log Σ_m exp(t c_mn) ]

    It lies above the mean of the maxima by up to log(N)/t, so that it may exceed 1.

    Args:
        similarity: [A,M,B,N] similarities c of members.
        temperature: t; the larger, the nearer to the maximum.
        scale: r, on the temperature of the first sum alone.
        denominator: d; 2 makes the mean of both sums.

    Returns:
        [A,B].
    """
    _, first_size, _, second_size = similarity.shape
    sharp = temperature * scale
    forth = (sharp * similarity).logsumexp(3).sum(1) / (first_size * sharp)  # [A,B]
    back = (temperature * similarity).logsumexp(1).sum(2) / (second_size * temperature)  # [A,B]
    return (forth + back) / denominator


def bag_similarity(
    similarity: Tensor,
    form: BagForm = "smooth_chamfer",
    temperature: float = 16.0,
    scale: float = 1.0,
    denominator: float = 2.0,
) -> Tensor:
    """Return one similarity for every pair of sets.

    Args:
        similarity: [A,M,B,N] similarities of members.
        form: ``smooth_chamfer``, ``chamfer`` (each member's best match, on average), ``max`` (the
            best pair of members) or ``avg`` (the mean of sigmoid(c) over all pairs of members).
        temperature: of ``smooth_chamfer``.
        scale: of ``smooth_chamfer``.
        denominator: of ``smooth_chamfer`` and ``chamfer``.

    Returns:
        [A,B].
    """
    if form == "max":
        return similarity.amax((1, 3))
    if form == "avg":
        return similarity.sigmoid().mean((1, 3))
    if form == "chamfer":
        return (similarity.amax(3).mean(1) + similarity.amax(1).mean(2)) / denominator
    return smooth_chamfer(similarity, temperature, scale, denominator)


def sequence_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean over positions of the inner product at that position, negative ones as 0.

    Args:
        first: [A,M,V] sequences, their entries unit vectors or probabilities.
        second: [B,M,V] sequences.

    Returns:
        [A,B].
    """
    products = first.transpose(0, 1) @ second.permute(1, 2, 0)  # [M,A,B]
    return products.clamp_min(0).mean(0)


def sequence_euclidean(first: Tensor, second: Tensor) -> Tensor:
    """Return the sum over positions of the Euclidean distance there, divided by M².

    By M², not M, since the released code takes the mean over all M x M pairs of positions after
    setting those of different positions to 0. The gradient is 0 where two entries coincide.

    Args:
        first: [A,M,V] sequences.
        second: [B,M,V] sequences.

    Returns:
        [A,B].
    """
    positions = first.shape[1]
    # one position after the other: this distance, exact near 0, is a matrix of rows by rows
    distances = [
        pairwise_euclidean(a, b) for a, b in zip(first.unbind(1), second.unbind(1), strict=True)
    ]
    return torch.stack(distances).sum(0) / positions**2
