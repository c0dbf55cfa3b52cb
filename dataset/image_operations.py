"""Operations on an image before it is normalised, in words and in px.

- ``resize_short N f``: the short side to N px, the long one in proportion, truncated
- ``squash N f``: to N × N px, aspect ratio lost
- ``center_crop N``: the middle N × N px
- ``random_crop N``: N × N px from anywhere
- ``random_resized_crop N scale a-b ratio c-d f of original``: a box of a share a to b of the area
  and an aspect ratio c to d, resized to N × N px; without ``of original``, of a resized image
- ``flip p``: left to right with probability p
- ``color_jitter brightness b contrast c``: both times a factor of 1 - b to 1 + b, in random order

``f`` is ``bicubic`` or ``bilinear``: Pillow's, with its built-in antialiasing. Sizes, rounding and
crops equal torchvision's transforms of Pillow images. Each random operation has ``draw``, which
chooses its parameters, and ``apply``, which carries out given ones.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageEnhance

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

_NUMBER = r"(\d+(?:\.\d+)?(?:/[1-9]\d*)?)"  # 0.75 or 3/4

Number = Callable[[int], float]
"""Stream of an operation → number in [0, 1)."""
Box = tuple[int, int, int, int]
"""Top, left, height, width, in px."""


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation on an image, uint8 [H,W,3].

    Attributes:
        form: how it is written.
        pattern: regular expression of its arguments; the groups are those of ``parse``.
        resizes: whether the size of its result is its own.
    """

    form: ClassVar[str]
    pattern: ClassVar[str]
    is_random: ClassVar[bool] = False
    resizes: ClassVar[bool] = True

    @classmethod
    def parse(cls, groups: Sequence[str | None]) -> Operation:
        """Return the operation of the matched arguments."""
        raise NotImplementedError

    def draw(self, shape: tuple[int, ...], number: Number) -> Any:
        """Return parameters for an image of ``shape`` [H,W,3]; None if nothing is random."""
        return None

    def apply(self, pixels: np.ndarray, drawn: Any = None) -> np.ndarray:
        """Return the changed image, uint8 [H',W',3]; perhaps a view of ``pixels``."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Sized(Operation):
    """An operation to a size in px."""

    size: int


@dataclasses.dataclass(frozen=True)
class Resize(Sized):
    """An operation to a size, by a filter."""

    pattern: ClassVar[str] = r"(\d+) (bicubic|bilinear)"

    filter: str

    @classmethod
    def parse(cls, groups: Sequence[str | None]) -> Operation:
        """Return the operation of size and filter."""
        return cls(int(groups[0] or 0), str(groups[1]))


class ResizeShort(Resize):
    """The short side to ``size``, the aspect ratio kept."""

    form = "resize_short N bicubic|bilinear"

    def apply(self, pixels: np.ndarray, drawn: Any = None) -> np.ndarray:
        """Return [size,W,3] or [H,size,3]."""
        height, width = pixels.shape[:2]
        long = int(self.size * max(height, width) / min(height, width))
        shape = (self.size, long) if height <= width else (long, self.size)
        return resized(pixels, shape, self.filter)

    def __str__(self) -> str:
        return f"resize_short {self.size} {self.filter}"


class Squash(Resize):
    """To exactly ``size`` × ``size``."""

    form = "squash N bicubic|bilinear"

    def apply(self, pixels: np.ndarray, drawn: Any = None) -> np.ndarray:
        """Return [size,size,3]."""
        return resized(pixels, (self.size, self.size), self.filter)

    def __str__(self) -> str:
        return f"squash {self.size} {self.filter}"


class CenterCrop(Sized):
    """The middle; a half pixel is rounded as torchvision does, to the even number."""

    form = "center_crop N"
    pattern = r"(\d+)"

    @classmethod
    def parse(cls, groups: Sequence[str | None]) -> Operation:
        """Return the operation of a size."""
        return cls(int(groups[0] or 0))

    def apply(self, pixels: np.ndarray, drawn: Any = None) -> np.ndarray:
        """Return [size,size,3]."""
        top, left = (round((side - self.size) / 2) for side in pixels.shape[:2])
        return cropped(pixels, (top, left, self.size, self.size))

    def __str__(self) -> str:
        return f"center_crop {self.size}"


class RandomCrop(CenterCrop):
    """``size`` × ``size`` px, each position as likely as any other; drawn: its box."""

    form = "random_crop N"
    is_random = True

    def draw(self, shape: tuple[int, ...], number: Number) -> Box:
        """Return the box."""
        top, left = (int(number(k) * (shape[k] - self.size + 1)) for k in range(2))
        return top, left, self.size, self.size

    def apply(self, pixels: np.ndarray, drawn: Any = None) -> np.ndarray:
        """Return [size,size,3]."""
        return cropped(pixels, drawn)

    def __str__(self) -> str:
        return f"random_crop {self.size}"


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop(Sized):
    """A box of random area and aspect ratio, resized; drawn: the box.

    Attributes:
        scale: least and largest share of the area.
        ratio: least and largest width over height.
        of_original: whether the image was not resized before.
    """

    form: ClassVar[str] = "random_resized_crop N scale a-b ratio c-d bicubic|bilinear [of original]"
    pattern: ClassVar[str] = (
        rf"(\d+) scale {_NUMBER}-{_NUMBER} ratio {_NUMBER}-{_NUMBER} (bicubic|bilinear)"
        r"( of original)?"
    )
    is_random: ClassVar[bool] = True

    scale: tuple[float, float]
    ratio: tuple[float, float]
    filter: str
    of_original: bool

    @classmethod
    def parse(cls, groups: Sequence[str | None]) -> Operation:
        """Return the operation of size, ranges and filter."""
        a, b, c, d = (_number(word) for word in groups[1:5])
        if not (0 < a <= b <= 1 and 0 < c <= d):
            raise ValueError("scale is a share a-b with 0 < a <= b <= 1, ratio c-d with 0 < c <= d")
        return cls(int(groups[0] or 0), (a, b), (c, d), str(groups[5]), groups[6] is not None)

    def draw(self, shape: tuple[int, ...], number: Number) -> Box:
        """Return the first of ten boxes that fits, else the largest in the middle."""
        height, width = shape[:2]
        (low, high), (narrow, wide) = self.scale, self.ratio
        for k in range(0, 40, 4):
            area = height * width * (low + (high - low) * number(k))
            log_ratio = math.log(narrow) + (math.log(wide) - math.log(narrow)) * number(k + 1)
            w = round(math.sqrt(area * math.exp(log_ratio)))
            h = round(math.sqrt(area / math.exp(log_ratio)))
            if 0 < w <= width and 0 < h <= height:
                top, left = (
                    int(number(k + 2) * (height - h + 1)),
                    int(number(k + 3) * (width - w + 1)),
                )
                return top, left, h, w
        w, h = width, height
        if width / height < narrow:
            h = round(width / narrow)
        elif width / height > wide:
            w = round(height * wide)
        return (height - h) // 2, (width - w) // 2, h, w

    def apply(self, pixels: np.ndarray, drawn: Any = None) -> np.ndarray:
        """Return [size,size,3]."""
        return resized(cropped(pixels, drawn), (self.size, self.size), self.filter)

    def __str__(self) -> str:
        (a, b), (c, d) = self.scale, (_fraction(side) for side in self.ratio)
        origin = " of original" if self.of_original else ""
        return (
            f"random_resized_crop {self.size} scale {a:g}-{b:g} ratio {c}-{d} {self.filter}{origin}"
        )


@dataclasses.dataclass(frozen=True)
class Flip(Operation):
    """Left to right with probability ``p``; drawn: whether."""

    form: ClassVar[str] = "flip p"
    pattern: ClassVar[str] = _NUMBER
    is_random: ClassVar[bool] = True
    resizes: ClassVar[bool] = False

    p: float

    @classmethod
    def parse(cls, groups: Sequence[str | None]) -> Operation:
        """Return the operation of a probability."""
        p = _number(groups[0])
        if not 0 <= p <= 1:
            raise ValueError("p is a probability, 0 to 1")
        return cls(p)

    def draw(self, shape: tuple[int, ...], number: Number) -> bool:
        """Return whether to flip."""
        return number(0) < self.p

    def apply(self, pixels: np.ndarray, drawn: Any = None) -> np.ndarray:
        """Return [H,W,3]."""
        return pixels[:, ::-1] if drawn else pixels

    def __str__(self) -> str:
        return f"flip {self.p:g}"


@dataclasses.dataclass(frozen=True)
class ColorJitter(Operation):
    """Brightness and contrast times random factors; drawn: both, and which comes first.

    Attributes:
        brightness, contrast: how far the factor may be from 1.
    """

    form: ClassVar[str] = "color_jitter [brightness b] [contrast c]"
    pattern: ClassVar[str] = rf"(?=.)(?:brightness {_NUMBER})? ?(?:contrast {_NUMBER})?"
    is_random: ClassVar[bool] = True
    resizes: ClassVar[bool] = False

    brightness: float
    contrast: float

    @classmethod
    def parse(cls, groups: Sequence[str | None]) -> Operation:
        """Return the operation of two ranges; one that is not given is 0."""
        return cls(*(_number(word) if word else 0.0 for word in groups))

    def draw(self, shape: tuple[int, ...], number: Number) -> tuple[float, float, bool]:
        """Return the factor of brightness, that of contrast, and whether brightness comes first."""
        ranges = [(max(0.0, 1 - by), 1 + by) for by in (self.brightness, self.contrast)]
        bright, contrast = (a + (b - a) * number(k) for k, (a, b) in enumerate(ranges))
        return bright, contrast, number(2) < 0.5

    def apply(self, pixels: np.ndarray, drawn: Any = None) -> np.ndarray:
        """Return [H,W,3]."""
        bright, contrast, brightness_first = drawn
        steps = [(ImageEnhance.Brightness, bright), (ImageEnhance.Contrast, contrast)]
        image = Image.fromarray(np.ascontiguousarray(pixels))
        for enhance, factor in steps if brightness_first else reversed(steps):
            image = enhance(image).enhance(factor)
        return np.asarray(image)

    def __str__(self) -> str:
        return f"color_jitter brightness {self.brightness:g} contrast {self.contrast:g}"


OPERATIONS: dict[str, type[Operation]] = {
    kind.form.split(" ", 1)[0]: kind
    for kind in (ResizeShort, Squash, CenterCrop, RandomCrop, RandomResizedCrop, Flip, ColorJitter)
}


def resized(pixels: np.ndarray, shape: tuple[int, int], resample: str) -> np.ndarray:
    """Return ``pixels`` as uint8 [*shape,3]."""
    if pixels.shape[:2] == shape:
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((shape[1], shape[0]), FILTERS[resample]))


def cropped(pixels: np.ndarray, box: Box) -> np.ndarray:
    """Return the part of ``pixels`` in ``box``, a view."""
    top, left, height, width = box
    return pixels[top : top + height, left : left + width]


def _number(word: str | None) -> float:
    """Return the number that ``3/4`` or ``0.75`` means."""
    numerator, _, denominator = str(word).partition("/")
    return float(numerator) / (float(denominator) if denominator else 1.0)


def _fraction(value: float) -> str:
    return str(Fraction(value).limit_denominator(100))
