"""Similarity of classes, from the predictions of a classifier for their rows (stage 1 of SHC).

A row n of class c_n has logits z_n. Its resemblance to the other classes is ::

    p_n = softmax(z_n with entry c_n set to -∞),        A_c = Σ_{n: c_n = c} p_n

A is made symmetric, (A + Aᵀ)/2; each of its rows is centred at its mean and divided by its largest
distance from it, the zero on the diagonal included; then the diagonal is set to 1. So entries lie
in [-1,1], and S is no longer symmetric.

Source: SHC (arXiv:2507.08404), section on stage 1, and its released code.

Where paper and code differ
    * Own class c_n: the code takes the label (our default), the paper's figure the class predicted.
      They are the same for rows that are classified rightly.
    * Sums: the code adds rows up, so that frequent classes weigh more (our default); with
      ``weighting="mean"`` the rows of a class are averaged.

Deviations: rows without label are left out (the code counts them to the first class); a row of A
without any difference gives 0 instead of NaN (classes without rows among themselves).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

OwnClass = Literal["label", "predicted"]
Weighting = Literal["sum", "mean"]


def class_similarity(
    logits: Tensor, label: Tensor, own_class: OwnClass = "label", weighting: Weighting = "sum"
) -> Tensor:
    """Return S [C,C] in float64 on the device of ``logits``.

    Args:
        logits: z [N,C].
        label: [N,C], one-hot or multi-hot; of several labels the first is the row's class.
        own_class: what the class of a row is taken from.
        weighting: whether the rows of a class are added or averaged.

    >>> class_similarity(torch.tensor([[9.0, 2.0, 1.0], [0.0, 9.0, 0.0]]), torch.eye(3)[:2])
    tensor([[ 1.0000,  1.0000, -0.3161],
            [ 1.0000,  1.0000, -0.1178],
            [ 0.0493,  0.9507,  1.0000]], dtype=torch.float64)
    """
    count = logits.shape[1]
    labelled = label.sum(1) > 0
    logits, label = logits[labelled].double(), label[labelled]
    if count < 2:
        return torch.ones(count, count, dtype=torch.float64, device=logits.device)
    chosen = (label > 0).int() if own_class == "label" else logits
    members = torch.nn.functional.one_hot(chosen.argmax(1), count).double()  # [N,C], the first
    confusion = logits.masked_fill(members > 0, -torch.inf).softmax(1)
    like = members.T @ confusion  # [C,C]
    if weighting == "mean":
        like = like / members.sum(0).clamp_min(1)[:, None]
    like = (like + like.T) / 2
    centred = like - like.mean(1, keepdim=True)
    reach = centred.abs().amax(1, keepdim=True)
    similarity = torch.where(reach > 0, centred / reach.clamp_min(1e-300), 0.0)
    return similarity.fill_diagonal_(1)
