"""What flows from loaders through models to losses."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

MODALITIES = ("image", "text")


class Features(NamedTuple):
    """Output of a backbone for one modality; B rows, D features, L tokens."""

    pooled: Tensor  # [B,D] one vector per row, not normalised
    tokens: Tensor | None = None  # [B,L,D] of patches (without the class token) or words
    mask: Tensor | None = None  # bool [B,L], True where a token is hidden (padding); None: none is


@dataclasses.dataclass
class Batch:
    """A batch of B rows. A modality arrives raw or as cached features of a frozen backbone.

    ``extras`` are further named tensors with one row per batch row (attributes, …); ``auxiliary``
    are further images and texts of the same rows by name (second captions, …), each a batch of its
    own, which an encoder takes like any other.
    """

    label: Tensor  # float [B,C], multi-hot (one-hot for single-label data)
    index: Tensor  # int64 [B], position of each row in its split (0..n_train-1 for training rows)
    image: Tensor | None = None  # [B,3,H,W] float, normalised as the backbone asks
    text: Tensor | None = None  # int64 token ids [B,L]
    text_mask: Tensor | None = None  # bool [B,L], True = hidden (padding)
    image_features: Features | None = None
    text_features: Features | None = None
    extras: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    auxiliary: dict[str, Batch] = dataclasses.field(default_factory=dict)

    @property
    def others(self) -> dict[str, Batch]:
        """The former name of ``auxiliary``, for plugins; goes with the next release."""
        return self.auxiliary

    def __len__(self) -> int:
        return int(self.label.shape[0])

    def features(self, modality: str) -> Features | None:
        """Return the cached features of ``modality``, or None when the batch holds raw input."""
        return self.image_features if modality == "image" else self.text_features

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """Return the batch on ``device``, its floating-point tensors in ``dtype`` if given."""

        def move(value: object) -> object:
            if isinstance(value, Tensor):
                target = dtype if value.is_floating_point() else None
                return value.to(device, dtype=target, non_blocking=True)
            if isinstance(value, Features):
                return Features(*(move(part) for part in value))  # type: ignore[arg-type]
            if isinstance(value, Batch):
                return value.to(device, dtype)
            if isinstance(value, dict):
                return {key: move(part) for key, part in value.items()}
            return value

        return Batch(**{f.name: move(getattr(self, f.name)) for f in dataclasses.fields(self)})  # type: ignore[arg-type]
