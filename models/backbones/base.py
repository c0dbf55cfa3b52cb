"""What every backbone offers, whatever library it comes from."""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from common.batch import Batch, Features


@dataclasses.dataclass(frozen=True)
class ImageInput:
    """The image input of a backbone: RGB, ``size`` px square, (x/255 - mean) / std."""

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

    @functools.cached_property
    def token_counts(self) -> dict[str, int]:
        """Modality → number of token features L of a row, measured by encoding a blank row.

        A modality without token features is left out.
        """
        mode, tensors = self.training, [*self.parameters(), *self.buffers()]
        example = tensors[0] if tensors else torch.empty(0)
        self.eval()  # statistics and random state stay as they are
        features = {}
        with torch.no_grad():
            if self.image_input is not None and "image" in self.modalities:
                size = self.image_input.size
                image = example.new_zeros(1, 3, size, size)
                features["image"] = self.encode_image(image, tokens=True)
            if "text" in self.modalities:
                ids, mask = (value.to(example.device) for value in self.tokenize([""]))
                features["text"] = self.encode_text(ids, mask, tokens=True)
        self.train(mode)
        return {m: f.tokens.shape[1] for m, f in features.items() if f.tokens is not None}

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that can be encoded."""
        return tuple(self.widths)

    def forward(self, batch: Batch, modality: str, tokens: bool = False) -> Features:
        """Return the features of ``modality``; those that the batch brings are passed through.

        ``tokens``: token features as well.
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
    """A frozen backbone whose features come with the batch; it has no parameters."""

    def __init__(
        self,
        widths: dict[str, int],
        token_widths: dict[str, int],
        fingerprint: str,
        token_counts: dict[str, int] | None = None,
    ) -> None:
        """Take the widths and token counts of the encoder that computed the features."""
        super().__init__()
        self.token_counts = dict(token_counts or {})
        self.widths = dict(widths)
        self.token_widths = dict(token_widths)
        self.fingerprint = fingerprint

    def encode_image(self, image: Tensor, tokens: bool = False) -> Features:
        """Refuse: there is no encoder here."""
        raise ValueError("this model works on cached features; the batch brings raw pictures")
