"""Matrices over all pairs of two sets of rows: distances, cosines, shared labels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def hamming_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return d_H(a_i, b_j) = (K - a_i·b_j)/2 [N,M] for all pairs of codes ``a`` [N,K], ``b`` [M,K].

    Codes of ±1 give integers 0..K. Entries of 0, which ``torch.sign`` leaves behind, count half a
    bit each, so distances may then end in .5; ``common.codes.sign`` never makes any. For
    real-valued codes the formula is the usual relaxation, with gradients. Integer types are
    computed in float32; both have one dtype and device. Distances are exact for K < 2^23 in float32
    (float16: K ≤ 1,024; bfloat16: K ≤ 128).

    >>> hamming_distance(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, -1.0], [1.0, 0.0]]))
    tensor([[1.0000, 0.5000]])
    """
    if not a.is_floating_point():
        a = a.float()
    if not b.is_floating_point():
        b = b.float()
    return (a.shape[-1] - a @ b.mT) / 2  # [N,M]


class _Euclidean(torch.autograd.Function):
    """Distances by differences, which are exact near 0; their gradient by two matrix products."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        distance = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
        ctx.save_for_backward(a, b, distance)
        return distance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        a, b, distance = ctx.saved_tensors
        # dD_ij/da_i = (a_i - b_j) / D_ij, and 0 where the rows coincide
        weight = torch.where(distance == 0, 0.0, gradients[0] / distance)  # [N,M]
        return weight.sum(1)[:, None] * a - weight @ b, weight.sum(0)[:, None] * b - weight.mT @ a


def pairwise_euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Return the Euclidean distances [N,M] of all pairs of rows of ``a`` [N,K] and ``b`` [M,K].

    Both have one dtype and device. The gradient is 0 where two rows coincide.
    Differences are squared directly, without the ‖a‖² + ‖b‖² - 2ab expansion, which loses half
    the digits near 0; memory is [N,M], not [N,M,K]. The gradient is faster than that of
    ``torch.cdist`` (``tests/bench/bench_pairwise.py``); there is no second derivative.

    >>> pairwise_euclidean(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[5., 0.]])
    """
    return _Euclidean.apply(a, b)


def pairwise_cosine(a: Tensor, b: Tensor, eps: float = 1e-8) -> Tensor:
    """Return the cosines [N,M] of all pairs of rows of ``a`` [N,K] and ``b`` [M,K].

    Both have one dtype and device. ``eps`` is the shortest length that a row is divided by; a row
    of length 0 has cosine 0 with everything.

    >>> pairwise_cosine(torch.tensor([[2.0, 0.0]]), torch.tensor([[5.0, 0.0], [0.0, 1.0]]))
    tensor([[1., 0.]])
    """
    return F.normalize(a, dim=-1, eps=eps) @ F.normalize(b, dim=-1, eps=eps).mT  # [N,M]


def share_label(a: Tensor, b: Tensor) -> Tensor:
    """Return S [N,M] with S_ij = 1 where rows of ``a`` and ``b`` share at least one label, else 0.

    Labels [N,C] and [M,C] are multi-hot, of any real, integer or bool dtype; S is float64 if either
    is, else float32. A row without labels shares none, not even with itself.

    >>> share_label(torch.tensor([[1, 1, 0], [0, 0, 0]]), torch.tensor([[0, 1, 1]]))
    tensor([[1.],
            [0.]])
    """
    a, b = _as_floats(a, b)
    return (a @ b.mT > 0).to(a.dtype)  # [N,M]


def label_overlap(a: Tensor, b: Tensor) -> Tensor:
    """Return the shares [N,M] of the labels of two rows that both have (Jaccard's index).

    Labels and dtypes are those of :func:`share_label`, above 0 exactly where that is 1.

    >>> label_overlap(torch.tensor([[1, 1, 0], [0, 0, 0]]), torch.tensor([[0, 1, 1]]))
    tensor([[0.3333],
            [0.0000]])
    """
    a, b = _as_floats(a, b)
    shared = a @ b.mT
    return shared / (a.sum(1)[:, None] + b.sum(1) - shared).clamp_min(1)


def _as_floats(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in float64 if either is, else in float32: sums of many labels are exact then."""
    dtype = torch.float64 if torch.float64 in (a.dtype, b.dtype) else torch.float32
    return a.to(dtype), b.to(dtype)
