r"""Baseline: two-layer heads and a pair likelihood, as in the toolkit of DCMHT's authors; no paper.

With a and c the codes of pictures and texts, S = 1 for pairs that share a label, and sgn the sign::

    θ = ½ clamp(a cᵀ, -64, 64)
    L = mean(log(1+e^θ) - S θ) + quan_alpha · (mse(a, sgn a) + mse(c, sgn c)) / 2

Head per modality: Linear D→256, ReLU, Dropout 0.3, Linear 256→K, tanh; weights kaiming-uniform
(fan-out), biases 0.

Deviations from the released code
    * It does not run as released (what loads the encoder is unpacked in the wrong order, and the
      optimiser is given a module that does not exist). This is what it was meant to be.
    * There, texts pass through the picture's head and their own is never used. Here they use their
      own.
    * It takes the likelihood from pictures to texts and from texts to pictures and halves the sum.
      S is symmetric, so that both are the same number, computed once here.
"""

from __future__ import annotations

import dataclasses

import torch.nn.functional as F
from torch import Tensor, nn

from common.pairwise import share_label
from common.registry import LOSSES, MODELS
from models.base import Batch, HashLoss, Outputs, Progress, Terms
from models.layers.heads import HeadModel, kaiming_fan_out, mlp_tanh_head
from models.losses.pair_terms import pair_likelihood

LARGEST_PRODUCT = 64.0
"""Inner products are cut here, and pass no gradient beyond."""


@dataclasses.dataclass(frozen=True)
class BaselineModelConfig:
    """Keys of ``model`` with ``name: baseline``."""

    hidden: int = 256  # width of the inner layer
    dropout: float = 0.3  # behind the inner layer


@MODELS.register("baseline", config=BaselineModelConfig, provides=("image_code", "text_code"))
class Baseline(HeadModel):
    """The toolkit's baseline: a two-layer head with tanh for each modality.

    Under several processes each draws dropout for its own rows, so training ends a little elsewhere
    than in one, as with another seed.
    """

    config: BaselineModelConfig

    def build_head(self, width: int) -> nn.Module:
        """Return Linear, ReLU, Dropout, Linear, tanh."""
        config = self.config
        head = mlp_tanh_head(width, config.hidden, self.problem.bits, config.dropout)
        kaiming_fan_out(head)
        return head


@dataclasses.dataclass(frozen=True)
class BaselineLossConfig:
    """Keys of ``loss`` with ``name: baseline``."""

    quan_alpha: float = 1e-3  # weight of the quantisation term


@LOSSES.register("baseline", config=BaselineLossConfig, needs=("image_code", "text_code"))
class BaselineLoss(HashLoss):
    """The toolkit's baseline: likelihood of image-text pairs and a quantisation term."""

    config: BaselineLossConfig

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``pair`` and ``quan``."""
        image, text = outputs.image_code, outputs.text_code
        similar = share_label(batch.label, batch.label).to(image.dtype)  # [B,B]
        theta = (image @ text.T).clamp(-LARGEST_PRODUCT, LARGEST_PRODUCT) / 2
        both = quantization(image) + quantization(text)
        return Terms(
            pair=pair_likelihood(theta, similar).mean(), quan=self.config.quan_alpha * both / 2
        )


def quantization(code: Tensor) -> Tensor:
    """Return the mean squared distance of codes [B,K] to their signs, a scalar."""
    return F.mse_loss(code, code.sign())
