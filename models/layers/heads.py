"""Hash heads that more than one method uses, and the model made of one head per modality."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Backbone, Batch, HashModel, Outputs, Problem, TrainFeatures

SMALL_DEVIATION = 0.01  # of the weights of a layer that starts small


class Standardize(nn.Module):
    """Subtract the training mean and divide by the training deviation plus 1e-3, per feature."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        """Start as the identity; :meth:`fit` sets the statistics."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def fit(self, features: Tensor) -> None:
        """Take the statistics of training features [N,D]."""
        self.mean.copy_(features.mean(0))
        self.deviation.copy_(features.std(0, unbiased=False) + 1e-3)

    def forward(self, features: Tensor) -> Tensor:
        """Standardise [B,D]."""
        return (features - self.mean) / self.deviation


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of [B,D]; a batch of one row takes the running statistics."""

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise [B,D]; one row has no variance of its own."""
        if self.training and len(rows) == 1:
            return F.batch_norm(
                rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(rows)


def kaiming_fan_out(module: nn.Module) -> None:
    """Initialise linear layers as DCMHT's toolkit: uniform within sqrt(6 / outputs), biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, mode="fan_out")
            nn.init.zeros_(layer.bias)


def small_linear(width: int, outputs: int) -> nn.Linear:
    """Return a linear layer with weights from N(0, 0.01²) and biases of 0."""
    layer = nn.Linear(width, outputs)
    nn.init.normal_(layer.weight, std=SMALL_DEVIATION)
    nn.init.zeros_(layer.bias)
    return layer


def mlp_tanh_head(width: int, hidden: int, bits: int, dropout: float) -> nn.Sequential:
    """Return Linear (PyTorch's initialisation), ReLU, Dropout, Linear, tanh: [B,D] → [B,K]."""
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, bits),
        nn.Tanh(),
    )


class HeadModel(HashModel):
    """One head per modality on the pooled features, from [B,D] to real-valued codes [B,K]."""

    def __init__(self, config: Any, problem: Problem, backbone: Backbone) -> None:
        super().__init__(config, problem, backbone)
        self.heads = nn.ModuleDict(
            {modality: self.build_head(backbone.widths[modality]) for modality in self.modalities}
        )

    @abstractmethod
    def build_head(self, width: int) -> nn.Module:
        """Return a new head for features of ``width``; called once for each modality."""

    def forward(self, batch: Batch) -> Outputs:
        """Return ``<modality>_code`` [B,K] for every modality."""
        return Outputs(**{f"{m}_code": self.encode(batch, m) for m in self.modalities})

    def encode(self, batch: Batch, modality: str) -> Tensor:
        """Return the head's output [B,K]."""
        return self.heads[modality](self.backbone(batch, modality).pooled)


@dataclasses.dataclass(frozen=True)
class LinearTanhConfig:
    """Keys of ``model`` with ``name: dsph``, ``dnph`` or ``dcmht_linear``."""

    dropout: float = 0.2  # before the tanh


class LinearTanhModel(HeadModel):
    """Linear, Dropout, tanh for each modality.

    Under several processes each draws dropout for its own rows, so training ends a little elsewhere
    than in one, as with another seed.
    """

    config: LinearTanhConfig

    def build_head(self, width: int) -> nn.Module:
        """Return Linear (PyTorch's default initialisation), Dropout, tanh."""
        linear = nn.Linear(width, self.problem.bits)
        return nn.Sequential(linear, nn.Dropout(self.config.dropout), nn.Tanh())


class StandardizedHeadModel(HeadModel):
    """A :class:`HeadModel` whose heads see standardised features if ``config.standardize``."""

    def __init__(self, config: Any, problem: Problem, backbone: Backbone) -> None:
        super().__init__(config, problem, backbone)
        self.needs_fit = config.standardize
        self.standardize = nn.ModuleDict(
            {m: Standardize(backbone.widths[m]) for m in self.modalities if config.standardize}
        )

    def fit(self, features: TrainFeatures) -> None:
        """Take the training statistics of each modality."""
        for modality, layer in self.standardize.items():
            layer.fit(features.of(modality))  # type: ignore[operator]

    def encode(self, batch: Batch, modality: str) -> Tensor:
        """Return the head's output [B,K]."""
        pooled = self.backbone(batch, modality).pooled
        if modality in self.standardize:
            pooled = self.standardize[modality](pooled)
        return self.heads[modality](pooled)
