r"""DNPH: Deep Neighborhood-aware Proxy Hashing with Uniform Distribution Constraint.

Y. Huo, Q. Qin, J. Dai, W. Zhang, L. Huang, C. Wang. ACM TOMM 20(6), article 169, 2024,
doi:10.1145/3643639. (Not DNpH of IEEE TMM 2024, by the same group.)

Random class proxies attract the codes of both modalities under a margin softmax, a linear
classifier on the encoder's features learns beside it, and every batch is drawn towards codes that
are spread evenly. With h the real-valued codes of a modality, ĥ and P̂ of unit length, Y the labels,
and u the classifier's logits::

    D_ic    = ‖ĥ_i - P̂_c‖² + m Y_ic                            the margin makes it harder
    L_proxy = -(1/2B) Σ_modalities Σ_i Σ_c Y_ic log softmax_c(-D_ic)
    L_cls   = Σ_modalities mean_i CE(u_i, first label of i)
    n       = (1/B) Σ_i h_i·s_π(i)      for each modality
    L       = L_proxy + L_cls - α (n_image + n_text)

The s are B fair random codes of ±1, the same for both modalities, and π, of each modality, is the
one-to-one assignment with the least Σ_i ‖h_i - s_π(i)‖. Distances, not their squares: squares would
make it maximise n. No other term quantises. ‖ĥ - P̂‖² = 2 - 2 ĥ·P̂, and a softmax does not see what
all classes share, so that -D enters it as 2 ĥ·P̂ - m Y.

Model, per modality: Linear D→K, Dropout 0.2, tanh for the code; Linear D→C, from the features and
not from the code, for the logits. Proxies: standard normal / 8.

Deviations from the released code
    * Proxies: the authors' repository makes an optimiser for them and never steps it, so that they
      stay as drawn; their later toolkit steps it (SGD, lr 1e-4). ``proxies: frozen`` (our default)
      is the first, ``trained`` the second. Frozen proxies limit short codes: on flickr8k at 16
      bits, training them at lr 0.02 gains 0.06 mAP (three seeds), at the toolkit's 1e-4 0.01 (one).
    * Layers start as PyTorch's default, as in the authors' repository. The toolkit draws them
      kaiming-uniform (fan-out) with biases 0: about 0.01 less mAP on flickr8k, at 16 and at 64 bits
      (one seed).
    * The classifier has C outputs; the toolkit's has 80 for every dataset.
    * A row without label is left out of L_cls; the reference takes it for class 0. It adds nothing
      to L_proxy but counts in B.
    * The random codes follow from the run's seed and the step instead of a global generator's
      state; they are the same in every process and after a resume. (Batches that
      ``runner.accumulate`` adds into one step share them.)
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.registry import LOSSES, MODELS
from models.base import Backbone, Batch, HashLoss, Outputs, Problem, Progress, Terms
from models.centers.hash_centers import random_signs
from models.layers.heads import LinearTanhConfig, LinearTanhModel
from models.losses.multilabel import first_label, multilabel_cross_entropy


@MODELS.register(
    "dnph",
    config=LinearTanhConfig,
    provides=("image_code", "text_code", "image_logits", "text_logits"),
)
class DNPH(LinearTanhModel):
    """DNPH (TOMM 2024): a linear code and a linear classifier for each modality."""

    def __init__(self, config: LinearTanhConfig, problem: Problem, backbone: Backbone) -> None:
        super().__init__(config, problem, backbone)
        self.classifiers = nn.ModuleDict(
            {m: nn.Linear(backbone.widths[m], problem.n_classes) for m in self.modalities}
        )

    def forward(self, batch: Batch) -> Outputs:
        """Return ``<modality>_code`` [B,K] and ``<modality>_logits`` [B,C]."""
        outputs = Outputs()
        for modality in self.modalities:
            pooled = self.backbone(batch, modality).pooled  # [B,D]
            outputs[f"{modality}_code"] = self.heads[modality](pooled)
            outputs[f"{modality}_logits"] = self.classifiers[modality](pooled)
        return outputs


@dataclasses.dataclass(frozen=True)
class DNPHLossConfig:
    """Keys of ``loss`` with ``name: dnph``."""

    margin: float = 1.0  # m, added to the distance of every proxy that a row has the label of
    noise_alpha: float = 0.1  # α; 0 spares the assignment
    proxies: Literal["frozen", "trained"] = "frozen"  # trained: by the group `proxies` of optim


PROXY_OPTIMIZER = {
    "name": "sgd", "lr": 1e-4, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant",
}  # fmt: skip


@LOSSES.register(
    "dnph",
    config=DNPHLossConfig,
    needs=("image_code", "text_code", "image_logits", "text_logits"),
    groups={"proxies": PROXY_OPTIMIZER},
)
class DNPHLoss(HashLoss):
    """DNPH (TOMM 2024): margin softmax to class proxies, a classifier, evenly spread codes."""

    config: DNPHLossConfig
    group = "proxies"
    proxies: Tensor
    noise_seed: Tensor

    def __init__(self, config: DNPHLossConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        proxies = torch.randn(problem.n_classes, problem.bits, generator=problem.generator) / 8
        if config.proxies == "trained":
            self.proxies = nn.Parameter(proxies)  # [C,K]
        else:
            self.register_buffer("proxies", proxies)
        # a buffer, so that a checkpoint brings it back
        seed = torch.randint(2**62, (), generator=problem.generator)
        self.register_buffer("noise_seed", seed)

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``proxy_<modality>``, ``cls_<modality>`` and, with a weight, ``noise_<modality>``.

        The noise terms are negative: the loss maximises them.
        """
        codes = torch.stack([outputs.image_code, outputs.text_code])  # [2,B,K]
        label = batch.label.to(codes.dtype)  # [B,C]
        proxies = F.normalize(self.proxies, dim=1)
        terms = Terms()
        for modality, code in zip(("image", "text"), codes, strict=True):
            logits = 2 * F.normalize(code, dim=1) @ proxies.T - self.config.margin * label  # -D
            terms[f"proxy_{modality}"] = -(label * logits.log_softmax(1)).sum(1).mean() / 2
            terms[f"cls_{modality}"] = multilabel_cross_entropy(
                outputs[f"{modality}_logits"], first_label(label)
            )
        if self.config.noise_alpha:
            noise = self.assigned_noise(codes, progress.step)
            gain = (codes * noise).sum(2).mean(1)  # [2]: n of both modalities
            terms["noise_image"], terms["noise_text"] = -self.config.noise_alpha * gain
        return terms

    def assigned_noise(self, codes: Tensor, step: int) -> Tensor:
        """Return the random code of ±1 that every row of ``codes`` is assigned to, both [M,B,K]."""
        _, rows, bits = codes.shape
        noise = self.draw_noise(rows, bits, step)
        return noise[assign(codes, noise)].to(codes)

    def draw_noise(self, rows: int, bits: int, step: int) -> Tensor:
        """Return fair random codes [B,K] of ±1 on the CPU, by the run's seed and the step."""
        # codes go to the CPU for the assignment anyway; one more read costs little
        generator = torch.Generator().manual_seed(int(self.noise_seed) + step)
        return random_signs(rows, bits, generator)


def assign(codes: Tensor, noise: Tensor) -> Tensor:
    """Return the row of ``noise`` that each row is assigned to [M,B], a permutation for every M.

    It has the least sum of Euclidean distances (not of their squares) of all permutations. There is
    no gradient. NaN is accepted, with any permutation: the terms show it.

    Args:
        codes: [M,B,K] real-valued codes.
        noise: [B,K] of ±1.
    """
    from scipy.optimize import linear_sum_assignment

    values = codes.detach().to("cpu", torch.float64)
    target = noise.to("cpu", torch.float64)
    # a product instead of differences: a fifth of the time; what it loses near 0 is below 1e-7
    square = values.pow(2).sum(2, keepdim=True) + target.pow(2).sum(1) - 2 * values @ target.T
    distance = square.clamp_min(0).sqrt().nan_to_num()  # [M,B,B]
    chosen = [linear_sum_assignment(cost)[1] for cost in distance.numpy()]
    return torch.from_numpy(np.stack(chosen))
