"""Codes chosen by a softmax over pairs of outputs (DCMHT, TwDH).

Layout of a row of 2K values: (bit 0: class 0, class 1; bit 1: class 0, class 1; …). Class 1 means
+1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pair_softmax(logits: Tensor) -> Tensor:
    """Return softmax over each pair of ``logits`` [B,2K], so that each pair sums to 1."""
    # as σ(z₁ - z₀): a softmax over an axis of two takes six times as long on a processor
    pairs = logits.unflatten(1, (-1, 2))
    return (pairs - pairs.flip(2)).sigmoid().flatten(1)


def pairs_to_code(pairs: Tensor) -> Tensor:
    """Return p₁ - p₀ [B,K] with ties moved just below 0, so that the sign is that of the arg max.

    Exact ties happen (two logits that a ReLU set to 0) and decode to -1: arg max takes the first
    index.
    """
    difference = pairs[:, 1::2] - pairs[:, 0::2]
    below = -torch.finfo(difference.dtype).tiny
    return torch.where(difference > 0, difference, difference.clamp_max(below))
