"""Softmax over cosines with a margin: the right class has to win by more than a hair."""

from __future__ import annotations

from typing import Literal

from torch import Tensor


def margin_cosine(
    cosine: Tensor, label: Tensor, form: Literal["cosine", "arc"], margin: float, closest: float
) -> Tensor:
    """Return cosines made worse where the label is: cos θ - m y, or cos(θ + m y).

    Args:
        cosine: [B,C] cosines to class vectors.
        label: [B,C] multi-hot, y.
        form: ``cosine`` (CosFace) or ``arc`` (ArcFace).
        margin: m.
        closest: cosines are cut to ±closest in the arc form, whose slope is infinite at 1.
    """
    worse = margin * label.to(cosine.dtype)
    if form == "cosine":
        return cosine - worse
    return (cosine.clamp(-closest, closest).acos() + worse).cos()
