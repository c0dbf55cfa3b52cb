"""The drawing code of the generated creatures in place of a diffusion model.

It draws a class from its attributes alone, so pseudo-images are meaningful without any weights. It
uses :func:`dataset.creatures.views.render_class_images`, so no dataset of any seed holds one of
its images; the prompt is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from dataset.base import HashDataset
from dataset.creatures.drawing import SIZE
from dataset.creatures.views import render_class_images
from dataset.creatures.world import ATTRIBUTE_NAMES
from runners.generation.image_model import ImageBatches, ImageRequest, image_seed
from utils.errors import UserError

NAME = "creatures"
_BATCH = 16


class CreaturesImageGenerator:
    """Draws creatures from attribute rows."""

    def __init__(self, seed: int, dataset: HashDataset) -> None:
        """Check that the attributes of ``dataset`` are those of the creatures.

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

    def generate(self, requests: Sequence[ImageRequest]) -> ImageBatches:
        """Yield the drawings in batches, in order."""
        for start in range(0, len(requests), _BATCH):
            yield [(r, self._draw(r)) for r in requests[start : start + _BATCH]]

    def _draw(self, request: ImageRequest) -> Image.Image:
        assert request.attributes is not None
        seed = image_seed(self.seed, request.key)
        return Image.fromarray(render_class_images(request.attributes, 1, seed)[0])
