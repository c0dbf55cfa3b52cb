"""Two regularisers of sets of vectors: diversity of their members, discrepancy of two clouds."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from common.pairwise import pairwise_euclidean

DiversityForm = Literal["flattened", "per_set"]


def diversity(members: Tensor, sharpness: float, form: DiversityForm) -> Tensor:
    """Return the crowding of members: a Gaussian potential over pairs, divided by M(M-1)/2.

    ``per_set`` takes the pairs inside each set and the mean over the sets; ``flattened`` takes
    all pairs of the batch, across sets too, and their sum. Memory is O(BM²) and O((BM)²).

    Args:
        members: [B,M,K] sets of M unit vectors.
        sharpness: t of the potential exp(-t ‖u - v‖²).
        form: ``per_set`` or ``flattened``.

    Returns:
        A scalar; 0 for sets of one member, which have no pair.
    """
    size = members.shape[1]
    if size < 2:
        return members.sum() * 0
    pairs = size * (size - 1) / 2
    if form == "per_set":
        return pair_potential(members, sharpness).mean() / pairs
    return pair_potential(members.flatten(0, 1)[None], sharpness).sum() / pairs


class _Potential(torch.autograd.Function):
    """Σ_{i<j} k_ij, k_ij = exp(-t ‖x_i - x_j‖²), and its gradient -2t Σ_j k_ij (x_i - x_j)."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, sharpness: float) -> Tensor:
        norms = -sharpness * points.pow(2).sum(2)  # [S,N]
        kernel = norms[:, :, None] + norms[:, None, :]
        kernel = kernel.baddbmm_(points, points.mT, alpha=2 * sharpness).clamp_max_(0).exp_()
        # before the sum: the rounding of N ones would exceed a small potential
        kernel.diagonal(dim1=1, dim2=2).zero_()
        ctx.save_for_backward(points, kernel)
        ctx.sharpness = sharpness
        return kernel.sum((1, 2)) / 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        points, kernel = ctx.saved_tensors
        slope = kernel.sum(2, keepdim=True) * points - kernel @ points
        return -2 * ctx.sharpness * gradients[0][:, None, None] * slope, None


def pair_potential(points: Tensor, sharpness: float) -> Tensor:
    """Return Σ_{i<j} exp(-t ‖x_i - x_j‖²) of each group of points.

    The squares are expanded, ‖x‖² + ‖y‖² - 2xy: no [N,N,K] tensor, and no root whose gradient
    fails where points coincide. There is no second derivative.

    Args:
        points: [S,N,K] S groups of N points; of about unit length, or digits are lost.
        sharpness: t.

    Returns:
        [S].
    """
    return _Potential.apply(points, sharpness)


def mean_discrepancy(first: Tensor, second: Tensor, gamma: float) -> Tensor:
    """Return the squared maximum mean discrepancy, mean k(u,u') - 2 mean k(u,v) + mean k(v,v').

    The kernel is exp(-γ ‖u - v‖) of the distance, *not* of its square, and the means include each
    point with itself. Its gradient is taken as 0 where two points coincide.

    Args:
        first: [N,K] points.
        second: [M,K] points.
        gamma: γ.

    Returns:
        A scalar.
    """

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (-gamma * pairwise_euclidean(a, b)).exp().mean()

    return kernel(first, first) - 2 * kernel(first, second) + kernel(second, second)
