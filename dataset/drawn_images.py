"""Pictures of photo-like sizes, drawn at random by a seed: for trying what needs some pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image

from utils.files import digest

PHOTO_SIZES = ((375, 500), (333, 500), (500, 375), (480, 640), (500, 500), (427, 640))
"""Heights and widths in pixels, as photos on the web have."""


class DrawnImages:
    """N pictures of soft colours under noise; picture ``i`` depends on the seed and on ``i``."""

    def __init__(self, n: int, seed: int = 0, sizes: tuple[tuple[int, int], ...] = PHOTO_SIZES):
        """Take their number, and the (height, width) that they have in turn."""
        self.n, self.seed, self.sizes = n, seed, sizes
        self.fingerprint = digest("drawn", str(n), str(seed), repr(sizes))

    def __len__(self) -> int:
        return self.n

    def decode(self, row: int) -> np.ndarray:
        """Return picture ``row``, RGB uint8 [H,W,3]."""
        rng = np.random.default_rng([self.seed, row])
        height, width = self.sizes[row % len(self.sizes)]
        colours = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        soft = np.asarray(colours.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        noisy = soft + rng.integers(-16, 17, (height, width, 1), dtype=np.int16)
        return noisy.clip(0, 255).astype(np.uint8)

    def name(self, row: int) -> str:
        """Return ``drawn picture <row>``."""
        return f"drawn picture {row}"
