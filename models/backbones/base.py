"""What every backbone offers, whatever library it comes from."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from common.batch import Batch, Features


@dataclasses.dataclass(frozen=True)
class ImageInput:
    """How a backbone wants its pictures: RGB, ``size`` px square, (x/255 - mean) / std."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Backbone(nn.Module, ABC):
    """A pretrained encoder of one or two modalities.

    Attributes:
        widths: modality → width D of the pooled features.
        token_widths: modality → width of the token features (same as ``widths`` for CLIP).
        image_input: how pictures must be prepared, or None for a text-only encoder.
        fingerprint: hash of weights and settings; the key of cached features.
    """

    widths: dict[str, int]
    token_widths: dict[str, int]
    image_input: ImageInput | None = None
    fingerprint: str = ""

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that can be encoded."""
        return tuple(self.widths)

    def forward(self, batch: Batch, modality: str, tokens: bool = False) -> Features:
        """Return the features of ``modality``; those that the batch brings are passed through.

        ``tokens`` asks for token features as well.
        """
        cached = batch.features(modality)
        if cached is not None:
            return cached
        if modality == "image":
            if batch.image is None:
                raise ValueError("the batch holds no image")
            return self.encode_image(batch.image, tokens)
        if batch.text is None:
            raise ValueError("the batch holds no text")
        mask = batch.text_mask
        if mask is None:
            mask = torch.zeros_like(batch.text, dtype=torch.bool)
        return self.encode_text(batch.text, mask, tokens)

    @abstractmethod
    def encode_image(self, image: Tensor, tokens: bool = False) -> Features:
        """Encode pictures [B,3,H,W], prepared as ``image_input`` says."""

    def encode_text(self, text: Tensor, mask: Tensor, tokens: bool = False) -> Features:
        """Encode token ids [B,L] with padding ``mask`` [B,L] (True = hidden)."""
        raise NotImplementedError(f"{type(self).__name__} encodes no text")

    def tokenize(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Return token ids int64 [N,L] and the padding mask bool [N,L] (True = hidden)."""
        raise NotImplementedError(f"{type(self).__name__} encodes no text")


class CachedBackbone(Backbone):
    """Stands in for a frozen backbone whose features come with the batch; has no parameters."""

    def __init__(
        self, widths: dict[str, int], token_widths: dict[str, int], fingerprint: str
    ) -> None:
        """Take the widths of the encoder that made the features."""
        super().__init__()
        self.widths = dict(widths)
        self.token_widths = dict(token_widths)
        self.fingerprint = fingerprint

    def encode_image(self, image: Tensor, tokens: bool = False) -> Features:
        """Refuse: there is no encoder here."""
        raise ValueError("this model works on cached features; the batch brings raw pictures")
