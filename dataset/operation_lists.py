"""Lists of operations on images: reading them, and what of them is done once.

A list ends in a square. Its part before the first random operation (:class:`Geometry`) is the same
at every access, so that a cache can hold what comes out of it; the rest is done per access.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from dataset.image_operations import (
    OPERATIONS,
    CenterCrop,
    Number,
    Operation,
    RandomResizedCrop,
    ResizeShort,
    Sized,
)
from utils.errors import UserError, nearest

DEFAULT = ("squash 224 bicubic",)
STREAMS = 64
"""Streams of random numbers that one operation may use."""


@dataclasses.dataclass(frozen=True)
class ImageOperations:
    """A list of operations that ends in a square of ``size`` px."""

    operations: tuple[Operation, ...]

    @classmethod
    def parse(cls, words: Sequence[str] | None, key: str) -> ImageOperations:
        """Return the operations of a list in words; None: :data:`DEFAULT`.

        Args:
            words: one operation each.
            key: the setting that holds the list, for messages.

        Raises:
            UserError: an operation that is not known or not understood, or a list that leaves
                images of a shape that no encoder reads.
        """
        operations = tuple(_operation(text, key) for text in (DEFAULT if words is None else words))
        if problem := _problem(operations):
            raise UserError(f"{key}={cls(operations)} is not accepted: {problem}.")
        return cls(operations)

    @property
    def size(self) -> int:
        """Side of the result, in px."""
        return next(op.size for op in reversed(self.operations) if isinstance(op, Sized))

    @property
    def is_random(self) -> bool:
        """Whether two accesses to an image may differ."""
        return any(op.is_random for op in self.operations)

    def scaled(self, size: int) -> ImageOperations:
        """Return the operations that end in ``size`` px, all their numbers of px in proportion."""
        by = size / self.size
        return ImageOperations(
            tuple(
                dataclasses.replace(op, size=max(round(op.size * by), 1))
                if isinstance(op, Sized)
                else op
                for op in self.operations
            )
        )

    def split(self) -> tuple[Geometry, tuple[Operation, ...]]:
        """Return the operations before the first random one, and the rest."""
        first = next((i for i, op in enumerate(self.operations) if op.is_random), None)
        fixed, rest = self.operations[:first], self.operations[first:] if first is not None else ()
        last = next((op for op in reversed(fixed) if isinstance(op, Sized)), None)
        ends_there = not any(op.resizes for op in rest)
        is_square = last is not None and (ends_there or not isinstance(last, ResizeShort))
        return Geometry(fixed, last.size if last is not None and is_square else None), rest

    def __str__(self) -> str:
        return f"[{', '.join(map(str, self.operations))}]"


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Operations without chance, and what comes out of them.

    Attributes:
        size: side in px of the square that every image becomes; None: images keep shapes of their
            own.
    """

    operations: tuple[Operation, ...]
    size: int | None

    def apply(self, pixels: np.ndarray, name: str = "") -> np.ndarray:
        """Return ``pixels`` (uint8 [H,W,3]) as uint8 [size,size,3] (or of its own shape).

        Raises:
            UserError: it does not become a square; names ``name``.
        """
        made = pixels
        for operation in self.operations:
            made = operation.apply(made)
        if self.size is not None and made.shape[:2] != (self.size, self.size):
            raise UserError(
                f"Picture '{name}' of {pixels.shape[1]}×{pixels.shape[0]} px is no square after "
                f"{self}; end data.train_image and data.eval_image with center_crop {self.size}, "
                f"or give squash {self.size}."
            )
        return made

    def keeps(self, shape: tuple[int, ...]) -> bool:
        """Tell whether images of ``shape`` [H,W,3] come out as they are."""
        sizes = {op.size for op in self.operations if isinstance(op, Sized)}
        return not self.operations or {shape[0], shape[1]} | sizes == {shape[0]}

    def __str__(self) -> str:
        return f"[{', '.join(map(str, self.operations))}]"


def apply_drawn(operations: Sequence[Operation], pixels: np.ndarray, number: Number) -> np.ndarray:
    """Return ``pixels`` after operations whose parameters are drawn by ``number``."""
    for i, operation in enumerate(operations, 1):  # the first streams are for other purposes
        drawn = operation.draw(pixels.shape, lambda k, i=i: number(STREAMS * i + k))  # type: ignore[misc]
        pixels = operation.apply(pixels, drawn)
    return pixels


def _operation(text: str, key: str) -> Operation:
    words = str(text).split()
    name = words[0] if words else ""
    if name not in OPERATIONS:
        forms = "; ".join(kind.form for kind in OPERATIONS.values())
        raise UserError(
            f"{key}: '{text}' is no operation on pictures.{nearest(name, OPERATIONS)} "
            f"Accepted: {forms}."
        )
    kind = OPERATIONS[name]
    reason = ""
    match = re.fullmatch(kind.pattern, " ".join(words[1:]))
    if match:
        try:
            operation = kind.parse(match.groups())
            if not isinstance(operation, Sized) or operation.size >= 1:
                return operation
            reason = " (N is at least 1)"
        except ValueError as error:
            reason = f" ({error})"
    raise UserError(f"{key}: '{text}' is not understood{reason}; it is written {kind.form}.")


def _problem(operations: Sequence[Operation]) -> str | None:
    """Return why a list does not end in a square, or None."""
    side: int | None = None  # least side so far; None: that of the original
    was_random = False
    for op in operations:
        if isinstance(op, CenterCrop) and side is None:
            return f"'{op}' may be larger than a picture; put resize_short or squash before it"
        if isinstance(op, CenterCrop) and side is not None and op.size > side:
            return f"'{op}' does not fit in the {side} px before it"
        if isinstance(op, RandomResizedCrop) and op.of_original != (side is None):
            if op.of_original:
                return f"'{op}' comes after another size; leave 'of original' out or put it first"
            return f"'{op}' has no size before it; end it with 'of original'"
        if isinstance(op, ResizeShort) and was_random:
            return f"'{op}' comes after a random operation; put it first"
        if isinstance(op, Sized):
            side = op.size
        was_random = was_random or op.is_random
    if side is None:
        return "it gives pictures no size; end it with squash N or a crop"
    return None  # a picture that resize_short leaves oblong is refused when it is read
