"""Hamming distance between ±1 codes as a matrix product."""

from __future__ import annotations

from torch import Tensor


def hamming_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return d_H(a_i, b_j) = (K - a_i·b_j)/2 for all pairs.

    Codes of ±1 give integers 0..K. Entries of 0, which ``torch.sign`` leaves behind, count half a
    bit each, so distances may then end in .5; ``common.codes.sign`` never makes any. For
    real-valued codes the formula is the usual relaxation, with gradients.

    Args:
        a: [N,K] codes; integer types are computed in float32.
        b: [M,K] codes, same dtype and device.

    Returns:
        [N,M] distances, exact for K < 2^23 in float32 (float16: K ≤ 1,024; bfloat16: K ≤ 128).

    >>> import torch
    >>> hamming_distance(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, -1.0], [1.0, 0.0]]))
    tensor([[1.0000, 0.5000]])
    """
    if not a.is_floating_point():
        a = a.float()
    if not b.is_floating_point():
        b = b.float()
    return (a.shape[-1] - a @ b.mT) / 2  # [N,M]
