"""Random changes of training images, the same again for the same (seed, epoch, position)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

AUGMENTATIONS = ("none", "flip", "crop_flip", "resized_crop_flip")


def uniform(seed: int, epoch: int, positions: np.ndarray, draw: int) -> np.ndarray:
    """Return one number in [0, 1) per position, float64 [B], that depends on the arguments only.

    Counter-based: the SplitMix64 finaliser (Steele, Lea & Flood, OOPSLA 2014), folded over them.
    """
    state = np.zeros(len(positions), dtype=np.uint64)
    words = (
        np.uint64(seed % 2**64),
        np.uint64(epoch),
        np.uint64(draw),
        positions.astype(np.uint64),
    )
    with np.errstate(over="ignore"):
        for word in words:
            state = (state ^ word) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)) * 2.0**-53


def augment(
    images: np.ndarray, kind: str, seed: int, epoch: int, positions: np.ndarray
) -> np.ndarray:
    """Change each image at random, by (seed, epoch, position).

    Args:
        images: uint8 [B,S,S,3].
        kind: ``none``; ``flip``: left to right, every other one; ``crop_flip``: also shifted by up
            to S/8 px with black borders; ``resized_crop_flip``: a stretch of 8-100 % of the area,
            aspect ratio 3/4-4/3, resized bilinearly (torchvision's defaults), and flipped.
        seed: of the run.
        epoch: counted from 0.
        positions: int [B], position of each image in its split.

    Returns:
        uint8 [B,S,S,3].
    """

    def draw(stream: int) -> np.ndarray:
        return uniform(seed, epoch, positions, stream)

    if kind == "none":
        return images
    size = images.shape[1]
    changed = images.copy()
    if kind == "crop_flip":
        pad = size // 8
        down, right = ((draw(s) * (2 * pad + 1)).astype(np.int64) - pad for s in (2, 3))
        for i, (y, x) in enumerate(zip(down, right, strict=True)):
            visible = images[i, max(-y, 0) : size - max(y, 0), max(-x, 0) : size - max(x, 0)]
            changed[i] = 0
            changed[i, max(y, 0) : size + min(y, 0), max(x, 0) : size + min(x, 0)] = visible
    elif kind == "resized_crop_flip":
        for i, (y, x, height, width) in enumerate(_random_boxes(size, len(images), draw)):
            box = Image.fromarray(images[i, y : y + height, x : x + width])
            changed[i] = box.resize((size, size), Image.Resampling.BILINEAR)
    flipped = draw(1) < 0.5
    changed[flipped] = changed[flipped, :, ::-1]
    return changed


def _random_boxes(size: int, n: int, draw: Callable[[int], np.ndarray]) -> np.ndarray:
    """Return (top, left, height, width) per image, int [n,4], as torchvision's RandomResizedCrop.

    The first of ten draws of area and aspect ratio that fits is used, else the whole image.
    """
    chosen = np.tile([0, 0, size, size], (n, 1))
    for attempt in reversed(range(10)):
        area, log_ratio, y, x = (draw(4 + 4 * attempt + k) for k in range(4))
        area = (0.08 + 0.92 * area) * size * size
        ratio = np.exp(math.log(4 / 3) * (2 * log_ratio - 1))  # 3/4..4/3
        width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
        height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
        top = (y * (size - height + 1)).astype(np.int64)
        left = (x * (size - width + 1)).astype(np.int64)
        fits = (width >= 1) & (height >= 1) & (width <= size) & (height <= size)
        chosen = np.where(fits[:, None], np.stack([top, left, height, width], axis=1), chosen)
    return chosen
