"""Softmax losses for rows with several labels or none: cross entropy, and a margin for it."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from models.losses.pair_terms import masked_mean


def multilabel_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Return the mean cross entropy to the labels, each with an equal share of its row.

    -(1/n) Σ_i Σ_c y_ic / (Σ_d y_id) · log softmax_c(logits_i), over the n rows that have a label;
    0 (with gradient 0) where none has one.

    Args:
        logits: [B,C].
        label: [B,C] multi-hot.
    """
    label = label.to(logits.dtype)
    share = label / label.sum(1, keepdim=True).clamp_min(1)
    entropy = -(share * F.log_softmax(logits, 1)).sum(1)  # [B]
    return masked_mean(entropy, (label > 0).any(1).to(logits.dtype))


def first_label(label: Tensor) -> Tensor:
    """Return only the first label of each row [B,C], in the dtype of ``label``.

    >>> import torch
    >>> first_label(torch.tensor([[0, 1, 1], [0, 0, 0]]))
    tensor([[0, 1, 0],
            [0, 0, 0]])
    """
    return label * (label.cumsum(1) == 1)


def margin_cosine(
    cosine: Tensor, label: Tensor, form: Literal["cosine", "arc"], margin: float, closest: float
) -> Tensor:
    """Return the cosines of a margin softmax: cos θ - m y, or cos(θ + m y).

    They are smaller where the label is, so that a row has to be closer to its class by the margin.

    Args:
        cosine: [B,C] cosines to class vectors.
        label: [B,C] multi-hot, y.
        form: ``cosine`` (CosFace) or ``arc`` (ArcFace).
        margin: m.
        closest: cosines are cut to ±closest in the arc form, whose slope is infinite at 1.
    """
    margins = margin * label.to(cosine.dtype)
    if form == "cosine":
        return cosine - margins
    return (cosine.clamp(-closest, closest).acos() + margins).cos()
