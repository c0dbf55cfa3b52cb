"""The two interfaces that a method fills: a model and a loss.

Every model names its real-valued codes ``image_code`` and ``text_code``, so that any loss that asks
for codes can be tried with any model; whatever else a loss wants has a name of its own.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from common.batch import MODALITIES, Batch, Features
from common.problem import Problem
from models.backbones.base import Backbone

__all__ = [
    "MODALITIES", "Backbone", "Batch", "Features", "HashLoss", "HashModel", "InputRequest",
    "MissingTensorError", "Outputs", "Problem", "Progress", "Terms", "TrainFeatures",
]  # fmt: skip


class MissingTensorError(AttributeError, KeyError):
    """A named tensor was asked for that is not there; the message lists those that are."""

    def __str__(self) -> str:
        return str(self.args[0])


class _NamedTensors(dict[str, Tensor]):
    """A dict of tensors whose entries can also be read as attributes."""

    def __init__(self, tensors: Mapping[str, Tensor] | None = None, /, **named: Tensor) -> None:
        # as a dict: accelerate makes a new one from a mapping when it converts to float32
        super().__init__({**(tensors or {}), **named})

    def __missing__(self, name: str) -> Tensor:
        raise MissingTensorError(f"there is no '{name}', only {', '.join(self) or 'nothing'}")

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]


class Outputs(_NamedTensors):
    """What a model gives to a loss, by name: ``Outputs(image_code=..., text_code=...)``."""

    def codes(self) -> dict[str, Tensor]:
        """Return modality → real-valued codes [B,K], for every modality there is."""
        return {m: self[f"{m}_code"] for m in MODALITIES if f"{m}_code" in self}


class Terms(_NamedTensors):
    """What a loss gives to a runner, which sums, logs and checks it: name → weighted scalar."""

    def total(self) -> Tensor:
        """Return the sum of all terms, a scalar."""
        return torch.stack([term.reshape(()) for term in self.values()]).sum()


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where training stands: ``epoch`` and ``step`` count from 0; ``step`` runs over all epochs."""

    epoch: int = 0
    step: int = 0
    epochs: int = 1
    total_steps: int = 1


@dataclasses.dataclass(frozen=True)
class TrainFeatures:
    """Pooled features of all training rows, for what is fitted once, without gradient.

    Attributes:
        image: [N,D] or None. text: [N,D] or None (first caption of each row). label: [N,C].
    """

    image: Tensor | None
    text: Tensor | None
    label: Tensor

    def of(self, modality: str) -> Tensor:
        """Return the features of ``modality`` [N,D]."""
        features = self.image if modality == "image" else self.text
        if features is None:
            raise ValueError(f"these training features hold no {modality}")
        return features


@dataclasses.dataclass(frozen=True)
class InputRequest:
    """What a model reads, as its configuration says, before encoder and model are built.

    Attributes:
        towers: modalities that its encoder must encode.
        tokens: whether token features are read beside the pooled ones.
        auxiliary: names of the auxiliary inputs that are read, where the dataset has them.
        generated_rows: whether the generated rows of the dataset are trained on.
        frozen: modalities whose tower is frozen, whatever ``backbone.freeze`` says.
    """

    towers: tuple[str, ...]
    tokens: bool = False
    auxiliary: tuple[str, ...] = ()
    generated_rows: bool = False
    frozen: tuple[str, ...] = ()


class HashModel(nn.Module, ABC):
    """A backbone with hash heads: a batch becomes real-valued codes [B,K] for each modality.

    Class attributes:
        modalities: what the model hashes; ``("image",)`` for image hashing, ``()`` for whatever
            modalities the data has.
        uses_tokens: whether the heads read token features beside the pooled ones.
        needs_fit: whether :meth:`fit` is called with the features of all training rows.
        auxiliary_inputs: names of the auxiliary inputs (``Batch.auxiliary``) that the model reads,
            where the dataset has them; formerly ``reads_others``, which plugins may use until the
            next release.
    """

    modalities: tuple[str, ...] = MODALITIES
    uses_tokens: bool = False
    needs_fit: bool = False
    auxiliary_inputs: tuple[str, ...] = ()
    reads_others: tuple[str, ...] = ()

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Refuse the hooks of former releases, which nothing calls any more."""
        super().__init_subclass__(**keywords)
        for hook in ("others_of", "towers_of", "prepare"):
            if isinstance(cls.__dict__.get(hook), classmethod):
                raise TypeError(f"{cls.__name__}.{hook} is called no more; define input_request")

    def __init__(self, config: Any, problem: Problem, backbone: Backbone) -> None:
        """Keep what every model has; heads are the subclass's. ``config`` is its dataclass."""
        super().__init__()
        self.config = config
        self.problem = problem
        self.backbone = backbone
        self.modalities = self.modalities or backbone.modalities

    @classmethod
    def input_request(cls, config: Any, modalities: tuple[str, ...]) -> InputRequest:
        """Return what a model with ``config`` reads to hash ``modalities``."""
        auxiliary = cls.auxiliary_inputs or cls.reads_others
        return InputRequest(modalities, cls.uses_tokens, auxiliary)

    @abstractmethod
    def forward(self, batch: Batch) -> Outputs:
        """Return the outputs for training, each with B rows."""

    @abstractmethod
    def encode(self, batch: Batch, modality: str) -> Tensor:
        """Return the real-valued codes [B,K] of one modality; their sign is the code."""

    def fit(self, features: TrainFeatures) -> None:
        """Set what is computed once from all training rows; called before training, in eval mode.

        Whatever it sets must be a buffer or parameter, so that it enters the checkpoint.
        """

    def protocol_notes(self, auxiliary: Mapping[str, str]) -> dict[str, Any]:
        """Return what ``metrics.json`` states of how rows were encoded, under ``protocol``.

        Args:
            auxiliary: name → source, of the auxiliary inputs and generated rows that were read.
        """
        return {}

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters by group name: ``backbone`` and ``head`` by default.

        A subclass that makes other groups names them at registration (``groups=``), so that a
        learning rate given for a group that does not exist is refused before anything is built.
        """
        inner = set(self.backbone.parameters())
        groups = {
            "backbone": [p for p in self.backbone.parameters() if p.requires_grad],
            "head": [p for p in self.parameters() if p not in inner and p.requires_grad],
        }
        return {name: parameters for name, parameters in groups.items() if parameters}


class HashLoss(nn.Module, ABC):
    """Model outputs and labels become named, weighted terms; may own proxies, centres, memories.

    The constructor takes ``(config, problem)``. A memory is a buffer with ``problem.n_train`` rows,
    written at ``batch.index``. Under several processes the runner gathers outputs, labels and
    indices first, so that a loss always sees the whole batch.

    Class attributes:
        group: name of the parameter group that its trainable parameters form.
    """

    group: str = "loss"

    def __init__(self, config: Any = None, problem: Problem | None = None) -> None:
        """Keep the config; a loss without state need not define a constructor."""
        super().__init__()
        self.config = config

    @abstractmethod
    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return the weighted terms of this batch, each a scalar."""

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the loss's own trainable parameters by group name: those of :attr:`group`."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        return {self.group: parameters} if parameters else {}
