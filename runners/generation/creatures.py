"""A stand-in for a diffusion model on the generated creatures: the set's own drawing code.

It draws a class from its attributes alone, so pseudo-images mean something without any weights. It
uses :func:`dataset.creatures.views.render_class_images`, so no dataset of any seed holds one of
its pictures; the prompt is not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from dataset.base import HashDataset
from dataset.creatures.drawing import SIZE
from dataset.creatures.views import render_class_images
from dataset.creatures.world import ATTRIBUTE_NAMES
from runners.generation.image_model import Painting, own_seed
from utils.errors import UserError

NAME = "creatures"
_BATCH = 16


class CreaturesPainter:
    """Draws imaginary animals from attribute rows."""

    def __init__(self, seed: int, dataset: HashDataset) -> None:
        """Check that the classes of ``dataset`` are described by the creatures' attributes.

        Raises:
            UserError: they are not.
        """
        if dataset.attribute_names != ATTRIBUTE_NAMES:
            raise UserError(
                f"--model {NAME} draws classes from the attributes of creatures_zeroshot, and "
                f"dataset '{dataset.name}' has {'others' if dataset.attribute_names else 'none'}; "
                "give a diffusion model."
            )
        self.seed, self.side = seed, SIZE
        self.identity: dict[str, Any] = {"model": NAME, "seed": seed}

    def paint(self, paintings: Sequence[Painting]) -> Iterator[list[tuple[Painting, Image.Image]]]:
        """Yield the drawings in batches, in order."""
        for start in range(0, len(paintings), _BATCH):
            yield [(p, self._draw(p)) for p in paintings[start : start + _BATCH]]

    def _draw(self, painting: Painting) -> Image.Image:
        assert painting.attributes is not None
        seed = own_seed(self.seed, painting.key)
        return Image.fromarray(render_class_images(painting.attributes, 1, seed)[0])
