"""Captions of pictures by BLIP (Li et al., ICML 2022), as transformers has it.

Words are chosen greedily, without a prompt, so a picture always gets the same caption. (Another
batch size or device may round differently and, where two words are as likely as each other, choose
the other.) A picture of which the model says nothing gets an empty caption.
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


class Captioner:
    """``BlipForConditionalGeneration`` with its processor; loaded at the first picture.

    Attributes:
        identity: all that decides the captions; JSON values.
    """

    def __init__(self, options: Options) -> None:
        """Find the model (fetching a tag) without loading it.

        Raises:
            UserError: there is none, or it is another kind of model.
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
            keys: what to caption.
            load: returns the picture of a key, RGB uint8 [H,W,3], or None for one to leave out.

        Raises:
            UserError: the model cannot be loaded, or memory does not hold one picture.
        """
        if self._model is None:
            self._load()
        size = self.options.batch_size or (8 if self.options.torch_device().type == "cpu" else 64)

        def work(batch: Sequence[Key]) -> list[str | None]:
            pictures = [load(key) for key in batch]
            # copies: a memory-mapped picture cannot be written to, and PyTorch asks for that
            texts = iter(self._batch([np.array(p) for p in pictures if p is not None]))
            return [None if picture is None else next(texts) for picture in pictures]

        yield from in_batches(keys, size, work, "captions")

    def _batch(self, pictures: list[np.ndarray]) -> list[str]:
        if not pictures:
            return []
        place, number_type = self.options.torch_device(), self.options.number_type()
        made = self._processor.image_processor(pictures, return_tensors="pt")
        pixels = made["pixel_values"].to(place, number_type)  # [B,3,H,W]
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
