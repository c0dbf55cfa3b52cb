r"""DSPH: Deep Semantic-Aware Proxy Hashing for Multi-Label Cross-Modal Retrieval.

Y. Huo, Q. Qin, J. Dai, L. Wang, W. Zhang, L. Huang, C. Wang. IEEE TCSVT 34(1), 2024,
doi:10.1109/TCSVT.2023.3285266. The loss follows HyP² (ACM MM 2022), there for images.

Learned proxies, one for each class, attract the codes of both modalities that carry the class and
repel the others beyond a threshold θ; rows with several labels that share none repel each other
too. With x̂, ŷ, P̂ of unit length, z in {x,y}, n_p and n_n the numbers of ones and zeros in the
labels Y, and E the ordered pairs of rows with more than one label that share no label::

    pos_z = (1/n_p) Σ_{Y_ic=1} (1 - ẑ_i·P̂_c)        neg_z = (1/n_n) Σ_{Y_ic=0} [ẑ_i·P̂_c - θ]₊
    r_ab  = (α/|E|) Σ_E [â_i·b̂_j - θ]₊   for ab in xx, yy, xy
    L     = pos_x + neg_x + pos_y + neg_y + r_xx + r_yy + r_xy

θ = 1 - 2 d(K,k)/K, k = ⌈log₂ C⌉, with d(n,k) the best known minimum distance of a binary linear
[n,k] code (``code_distances.npz``, n ≤ 256, re-encoded from the public table as integers).

Head per modality: Linear D→K, Dropout 0.2, tanh, in that order. Proxies: normal with fan-out
scaling, from a seed of their own (0), trained by SGD (lr 0.02, momentum 0.9, weight decay 5e-4,
constant).

Deviations from the released code
    * The reference reseeds the global generator when it makes the proxies; we use a generator of
      their own.
    * Empty divisors (a batch without any zero label) give 0 instead of infinity.
    * K > 256 has no entry in the table: give ``loss.threshold``.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.registry import LOSSES, MODELS
from models.base import Batch, HashLoss, Outputs, Problem, Progress, Terms
from models.layers.heads import LinearTanhConfig, LinearTanhModel
from models.losses.pair_terms import masked_mean
from utils.errors import UserError


@MODELS.register("dsph", config=LinearTanhConfig, provides=("image_code", "text_code"))
class DSPH(LinearTanhModel):
    """DSPH (TCSVT 2024): one linear layer, dropout and tanh for each modality."""


@dataclasses.dataclass(frozen=True)
class DSPHLossConfig:
    """Keys of ``loss`` with ``name: dsph``."""

    alpha: float = 0.8  # α, weight of the irrelevant pairs
    threshold: float | None = None  # θ; None: from the table of code distances
    proxy_seed: int = 0  # of the proxies' first values, whatever the run's seed


PROXY_OPTIMIZER = {
    "name": "sgd", "lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4, "schedule": "constant",
}  # fmt: skip


@LOSSES.register(
    "dsph",
    config=DSPHLossConfig,
    needs=("image_code", "text_code"),
    groups={"proxies": PROXY_OPTIMIZER},
)
class DSPHLoss(HashLoss):
    """DSPH (TCSVT 2024): learned class proxies and repulsion of irrelevant multi-label pairs."""

    config: DSPHLossConfig
    group = "proxies"

    def __init__(self, config: DSPHLossConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        threshold = config.threshold
        self.threshold = (
            code_threshold(problem.bits, problem.n_classes) if threshold is None else threshold
        )
        generator = torch.Generator().manual_seed(config.proxy_seed)
        proxies = torch.randn(problem.n_classes, problem.bits, generator=generator)
        nn.init.kaiming_normal_(proxies, mode="fan_out", generator=generator)
        self.proxies = nn.Parameter(proxies)  # [C,K]

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``pos_<modality>``, ``neg_<modality>`` and ``reg_ii``, ``reg_tt``, ``reg_it``."""
        codes = {
            "image": F.normalize(outputs.image_code, dim=1),
            "text": F.normalize(outputs.text_code, dim=1),
        }
        proxies = F.normalize(self.proxies, dim=1)
        label = batch.label.to(proxies.dtype)  # [B,C]
        terms = Terms()
        for modality, code in codes.items():
            cosine = code @ proxies.T  # [B,C]
            terms[f"pos_{modality}"] = masked_mean(1 - cosine, label)
            terms[f"neg_{modality}"] = masked_mean(
                (cosine - self.threshold).clamp_min(0), 1 - label
            )
        if self.config.alpha:
            terms.update(self._irrelevant(codes, label))
        return terms

    def _irrelevant(self, codes: dict[str, Tensor], label: Tensor) -> Terms:
        several = label.sum(1) > 1
        chosen = label[several]
        unrelated = (chosen @ chosen.T == 0).to(label.dtype)  # E, as a mask
        terms = Terms()
        for a, b in (("image", "image"), ("text", "text"), ("image", "text")):
            cosine = codes[a][several] @ codes[b][several].T
            excess = (cosine - self.threshold).clamp_min(0)
            terms[f"reg_{a[0]}{b[0]}"] = self.config.alpha * masked_mean(excess, unrelated)
        return terms


def code_threshold(bits: int, n_classes: int) -> float:
    """Return θ(K,C) = 1 - 2 d(K,k)/K with k = ⌈log₂ C⌉.

    Raises:
        UserError: the table has no such code (K > 256, or fewer bits than k).

    >>> code_threshold(16, 80), code_threshold(64, 24)
    (0.25, 0.0)
    """
    table = np.load(Path(__file__).with_name("code_distances.npz"))["dmin"]  # [257,257], -1 = none
    dimension = max((n_classes - 1).bit_length(), 1)
    known = bits < len(table) and dimension < table.shape[1]
    distance = int(table[bits, dimension]) if known else -1
    if distance < 0:
        raise UserError(
            f"DSPH has no threshold for bits={bits} and {n_classes} classes: its table holds "
            f"codes of {dimension} to 256 bits for so many classes; give "
            "loss.threshold=0 or another number."
        )
    return 1 - 2 * distance / bits
