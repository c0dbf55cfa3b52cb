"""Captions of images by BLIP (Li et al., ICML 2022), as transformers implements it.

Decoding is greedy and without a prompt, so an image always gets the same caption. (Another batch
size or device may round differently and, where two words are equally likely, choose the other.) An
image for which the model generates nothing gets an empty caption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from runners.generation import model_files as weights
from runners.generation.batches import in_batches
from runners.generation.options import Options
from utils.errors import UserError

KIND = "a BLIP captioner (a folder with config.json, or tag)"
MARKER = "config.json"
MAX_WORD_PIECES = 30

Key = TypeVar("Key")


class CaptionModel:
    """``BlipForConditionalGeneration`` with its processor; loaded at the first image.

    Attributes:
        identity: everything that decides the captions; JSON values.
    """

    def __init__(self, options: Options) -> None:
        """Find the model (fetching a tag) without loading it.

        Raises:
            UserError: no such model, or another kind of model.
        """
        assert options.captioner is not None
        self.options = options
        self.path = weights.find(options.captioner, "--captioner", MARKER, KIND, weights.fetch)
        kind = weights.read_json(self.path / MARKER).get("model_type")
        if kind != "blip":
            raise UserError(
                f"--captioner: '{self.path}' holds a model of type '{kind}'; {KIND} is needed."
            )
        self.identity: dict[str, Any] = {
            "captioner": options.captioner,
            "fingerprint": weights.fingerprint(self.path),
            "decoding": "greedy",
            "max_word_pieces": MAX_WORD_PIECES,
            "dtype": str(options.number_type()).removeprefix("torch."),
        }
        self._model: Any = None
        self._processor: Any = None

    def caption(
        self, keys: Sequence[Key], load: Callable[[Key], np.ndarray | None]
    ) -> Iterator[list[tuple[Key, str | None]]]:
        """Yield captions in batches, in order.

        Args:
            keys: of the images.
            load: returns the image of a key, RGB uint8 [H,W,3], or None to leave it out.

        Raises:
            UserError: the model cannot be loaded, or memory does not hold one image.
        """
        if self._model is None:
            self._load()
        size = self.options.batch_size or (8 if self.options.torch_device().type == "cpu" else 64)

        def work(batch: Sequence[Key]) -> list[str | None]:
            images = [load(key) for key in batch]
            # copies: memory-mapped arrays are read-only, and PyTorch needs writable ones
            texts = iter(self._batch([np.array(image) for image in images if image is not None]))
            return [None if image is None else next(texts) for image in images]

        yield from in_batches(keys, size, work, "captions")

    def _batch(self, images: list[np.ndarray]) -> list[str]:
        if not images:
            return []
        device, number_type = self.options.torch_device(), self.options.number_type()
        inputs = self._processor.image_processor(images, return_tensors="pt")
        pixels = inputs["pixel_values"].to(device, number_type)  # [B,3,H,W]
        with torch.inference_mode():
            ids = self._model.generate(
                pixel_values=pixels, num_beams=1, do_sample=False, max_new_tokens=MAX_WORD_PIECES
            )
        texts = self._processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]

    def _load(self) -> None:
        from transformers import BlipForConditionalGeneration, BlipProcessor

        with weights.loading(str(self.options.captioner), "--captioner", KIND):
            self._processor = BlipProcessor.from_pretrained(self.path, local_files_only=True)
            model: Any = BlipForConditionalGeneration.from_pretrained(
                self.path, dtype=self.options.number_type(), local_files_only=True
            )
        self._model = model.to(self.options.torch_device()).eval()
