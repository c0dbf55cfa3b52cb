"""Pairwise quantities that several losses are written in."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pair_likelihood(theta: Tensor, similar: Tensor) -> Tensor:
    """Return the negative log-likelihood of each pair, ``log(1 + e^θ) - S θ``.

    A pair is similar with probability sigmoid(θ): the likelihood behind DPSH, HashNet, DCMH and
    MITH.

    Args:
        theta: [N,M] logits, some scale times the inner products of codes.
        similar: [N,M] 1 where a pair shares a label, else 0.
    """
    return F.softplus(theta) - similar * theta


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of ``values`` where ``mask`` is 1; 0 (with gradient 0) where it is empty."""
    return (values * mask).sum() / mask.sum().clamp_min(1)
