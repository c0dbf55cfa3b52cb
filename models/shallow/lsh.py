"""LSH: random hyperplanes.

M. S. Charikar. Similarity Estimation Techniques from Rounding Algorithms. STOC 2002.

Codes are the signs of K random projections of the centred features; nothing is learned. All
modalities of a dual encoder share the projection (their widths are equal), each centred by its own
training mean; where the widths differ, every modality gets its own projection and only
same-modality retrieval is meaningful.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.registry import MODELS
from models.base import Backbone, Batch, HashModel, Outputs, Problem, TrainFeatures


class FittedProjection(HashModel):
    """A model without gradient: u = (x - mean) W for each modality, set once by :meth:`fit`."""

    modalities: tuple[str, ...] = ()
    needs_fit = True

    def __init__(self, config: object, problem: Problem, backbone: Backbone) -> None:
        super().__init__(config, problem, backbone)
        self.projections = nn.ModuleDict(
            {m: _Projection(backbone.widths[m], problem.bits) for m in self.modalities}
        )

    def forward(self, batch: Batch) -> Outputs:
        """Return ``<modality>_code`` [B,K]."""
        return Outputs(**{f"{m}_code": self.encode(batch, m) for m in self.modalities})

    def set_projection(self, modality: str, mean: Tensor, weight: Tensor) -> None:
        """Set the mean [D] and the directions [D,K] of ``modality``."""
        projection = self.projections[modality]
        assert isinstance(projection, _Projection)
        projection.mean.copy_(mean)
        projection.weight.copy_(weight)

    def encode(self, batch: Batch, modality: str) -> Tensor:
        """Return the projections [B,K]."""
        return self.projections[modality](self.backbone(batch, modality).pooled)


class _Projection(nn.Module):
    mean: Tensor
    weight: Tensor

    def __init__(self, width: int, bits: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("weight", torch.zeros(width, bits))

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) @ self.weight


@MODELS.register("lsh", provides=("image_code", "text_code"))
class LSH(FittedProjection):
    """LSH (STOC 2002): signs of random projections of centred features."""

    def fit(self, features: TrainFeatures) -> None:
        """Centre by the training means and draw the Gaussian projections."""
        directions: dict[int, Tensor] = {}
        for modality in self.modalities:
            values = features.of(modality)
            width = values.shape[1]
            if width not in directions:
                shape = (width, self.problem.bits)
                directions[width] = torch.randn(shape, generator=self.problem.generator)
            self.set_projection(modality, values.mean(0), directions[width])
