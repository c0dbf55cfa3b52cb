"""Raw pixels and a bag of hashed words, without a network: a reference point, and for tests."""

from __future__ import annotations

import dataclasses
import re
import zlib

import torch
import torch.nn.functional as F
from torch import Tensor

from common.batch import Features
from common.registry import BACKBONES
from models.backbones.base import Backbone, ImageInput
from utils.errors import UserError
from utils.files import digest

GRID = 4
LARGEST = 4096  # pixels of a side


@dataclasses.dataclass(frozen=True)
class PixelsConfig:
    """Sizes of the two representations.

    Attributes:
        size: side in pixels of the picture that is flattened, a multiple of 4.
        text_width: number of bins that words are hashed into.
        max_words: words of a text that are counted.
    """

    size: int = 32
    text_width: int = 512
    max_words: int = 64


@BACKBONES.register("pixels", config=PixelsConfig)
class PixelsBackbone(Backbone):
    """Raw pixels and hashed word counts: no weights, nothing to train, frozen by nature.

    pooled image: the picture at ``size`` px, flattened, D = 3 size²; tokens: 16 square patches.
    pooled text: how often each of ``text_width`` bins is hit; tokens: one-hot bins. A word goes to
    bin crc32(lower-cased word) modulo ``text_width``, on every machine the same.
    """

    frozen = ("image", "text")
    one: Tensor

    def __init__(self, config: PixelsConfig, modalities: tuple[str, ...]) -> None:
        """Check the sizes; raise :class:`UserError` where they do not fit."""
        super().__init__()
        sizes = (config.text_width, config.max_words)
        if not GRID <= config.size <= LARGEST or config.size % GRID or min(sizes) < 1:
            raise UserError(
                f"backbone.size={config.size}, text_width={config.text_width}, "
                f"max_words={config.max_words}: size has to be a multiple of {GRID} up to "
                f"{LARGEST}, the others at least 1."
            )
        self.config = config
        self.image_input = ImageInput(config.size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        widths = {"image": 3 * config.size**2, "text": config.text_width}
        token_widths = {"image": widths["image"] // GRID**2, "text": config.text_width}
        self.widths = {m: widths[m] for m in widths if m in modalities}
        self.token_widths = {m: token_widths[m] for m in widths if m in modalities}
        self.fingerprint = digest("pixels", repr(config))
        self.register_buffer("one", torch.ones(()), persistent=False)  # carries device and dtype

    def encode_image(self, image: Tensor, tokens: bool = False) -> Features:
        """Flatten pictures [B,3,H,W], shrunk if need be; tokens [B,16,3 (size/4)²]."""
        size = self.config.size
        if image.shape[-2:] != (size, size):
            image = F.interpolate(image, (size, size), mode="bilinear", antialias=True)
        pooled = image.flatten(1)  # [B,3*size*size]
        if not tokens:
            return Features(pooled)
        side = size // GRID
        return Features(pooled, F.unfold(image, side, stride=side).transpose(1, 2))

    def encode_text(self, text: Tensor, mask: Tensor, tokens: bool = False) -> Features:
        """Count bins [B,L] that are not hidden; tokens are one-hot [B,L,text_width]."""
        visible = (~mask).to(self.one.dtype)  # [B,L]
        counts = visible.new_zeros(len(text), self.config.text_width)
        counts = counts.scatter_add(1, text, visible)  # [B,text_width]
        if not tokens:
            return Features(counts)
        onehot = F.one_hot(text, self.config.text_width).to(visible.dtype)
        return Features(counts, onehot * visible[..., None], mask)

    def tokenize(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Return the bins of the words, int64 [N,max_words], and what is padding."""
        length = self.config.max_words
        ids = torch.zeros(len(texts), length, dtype=torch.long)
        mask = torch.ones(len(texts), length, dtype=torch.bool)
        for row, text in enumerate(texts):
            words = re.findall(r"\w+", text.lower())[:length]
            bins = [zlib.crc32(word.encode()) % self.config.text_width for word in words]
            ids[row, : len(bins)] = torch.tensor(bins, dtype=torch.long)
            mask[row, : len(bins)] = False
        return ids, mask
