"""What VTPH needs: a caption of every image; for every query a generated image and its caption.

VTPH (models/cross_modal/vtph.py) reads a second text of each row and, since a text query must not
read its own image, an image generated from its text. The folder::

    captions.jsonl        {"row": r, "text": ...}  a caption of the image of every dataset row
    query_images/<r>.png  generated from the text of query row r (its first caption)
    query_captions.jsonl  {"row": r, "text": ...}  a caption of that generated image
    contact_sheet.png     the first generated images with their texts
    manifest.json         what produced each of the three; dataset, split, counts, versions

Rows are row numbers of the dataset, query rows those of its split. ``--model`` alone generates
images and ``--captioner`` alone captions what the folder has, so the two may run on different
machines.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.config.run_config import RunConfig
from dataset.base import BadImageError, HashDataset
from dataset.images import decode_image
from runners.generation.base import Generation
from runners.generation.caption_model import KIND, MARKER, CaptionModel
from runners.generation.contact_sheet import SHOWN, contact_sheet
from runners.generation.creatures import NAME as CREATURES
from runners.generation.image_model import ImageKey, ImageRequest
from runners.generation.model_files import check as check_model
from runners.generation.options import Options
from runners.generation.prompts import fill
from utils.errors import UserError
from utils.files import digest
from utils.progress import progress_bar

log = logging.getLogger("hashing")


class VTPHGeneration(Generation):
    """One ``generate`` command for VTPH."""

    method = "vtph"
    prompt = "<text>"
    placeholders = ("text",)
    image_part = "query_images"
    line_keys = {"captions": "row", "query_captions": "row"}

    def __init__(self, options: Options, dataset: HashDataset, config: RunConfig) -> None:
        super().__init__(options, dataset, config)
        self.caption_model, name = None, options.captioner
        if name and (check_model(name, "--captioner", MARKER, KIND) or not options.dry_run):
            self.caption_model = CaptionModel(options)
            self.folder.check("captions", self.caption_model.identity)
            self.folder.check("query_captions", self._query_caption_identity(self.caption_model))

    def check_options(self) -> None:
        """Refuse PZSH's options and queries without a text."""
        options = self.options
        if not options.model and not options.captioner:
            raise UserError(
                "generate --method vtph needs --model PATH (it paints pictures from query texts), "
                "--captioner PATH (it captions pictures), or both."
            )
        if options.model == CREATURES:
            raise UserError(
                f"--model {CREATURES} draws classes, not texts; give a diffusion model, or leave "
                "--model out to make the captions of pictures only."
            )
        if options.count or options.condition != "none":
            raise UserError("--count and --condition belong to --method pzsh, not to vtph.")
        if options.features:
            raise UserError("--features belongs to --method pzsh; VTPH's are encoded in training.")
        self.rows = list(range(len(self.dataset)))[: options.limit]
        self.query = [int(row) for row in self.dataset.split.query][: options.limit]
        self.image_keys = [("row", row, 0) for row in self.query]
        texts = self.dataset.texts
        if texts is None:
            raise UserError(
                f"Dataset '{self.dataset.name}' has no text, and generate --method vtph paints "
                "pictures from texts; choose a dataset with captions."
            )
        first = {row: (texts[row] or ("",))[0].strip() for row in self.query}
        empty = [row for row, text in first.items() if not text]
        if empty:
            raise UserError(
                f"Dataset '{self.dataset.name}': the text of query row {empty[0]} is empty "
                f"({len(empty)} such rows), and no picture can be painted from it; give it a text "
                "or take the row out of the queries."
            )
        self.prompts = {row: fill(self.template, {"text": text}) for row, text in first.items()}

    def _query_caption_identity(self, caption_model: CaptionModel) -> dict[str, Any]:
        """Return what decides the captions of generated images: both models."""
        images = self.folder.made_by("query_images")
        if self.image_generator:
            images = self.image_identity(self.image_generator)
        identity = {k: v for k, v in (images or {}).items() if k != "model"}
        return {**caption_model.identity, "pictures": digest(json.dumps(identity, sort_keys=True))}

    def image_file(self, key: ImageKey) -> str:
        """Return ``query_images/<row>.png``."""
        return f"query_images/{key[1]}.png"

    def image_request(self, key: ImageKey) -> ImageRequest:
        """Return the request for the image of a query row."""
        return ImageRequest(key, self.prompts[int(key[1])])

    def _query_image(self, row: int) -> Path:
        return self.image_path(("row", row, 0))

    def missing(self) -> dict[str, list[Any]]:
        """Return for each part the rows that are not in the folder."""
        captioned: dict[str, list[int]] = {"captions": [], "query_captions": []}
        if self.options.captioner:
            captioned["captions"] = self.rows
            captioned["query_captions"] = [
                row for row in self.query if self.options.model or self._query_image(row).is_file()
            ]
        return super().missing() | {
            part: [row for row in rows if row not in self.lines[part].entries]
            for part, rows in captioned.items()
        }

    def summary_lines(self, missing: dict[str, list[Any]]) -> list[str]:
        """Return a line for each part."""
        totals = {"query_images": self.query, "captions": self.rows, "query_captions": self.query}
        return [
            f"{part.replace('_', ' '):15} {len(missing[part]):>8,} to make of {len(rows):,}"
            for part, rows in totals.items()
        ]

    def finish(self) -> None:
        """Caption the pictures of the dataset and the generated images; show some of them."""
        self.image_generator = None  # its memory is free for the caption model
        model = self.caption_model
        if model:
            self._caption(model, "captions", self.rows, self.dataset.images.decode, model.identity)
            self._caption(
                model, "query_captions", self.query, self._decode_query_image,
                self._query_caption_identity(model),
            )  # fmt: skip
        captions = self.lines["query_captions"].entries
        texts = {row: f"\n> {entry['text']}" for row, entry in captions.items()}
        entries = [
            (self._query_image(row), f"{row}: {self.prompts[row]}{texts.get(row, '')}")
            for row in self.query
            if self._query_image(row).is_file()
        ]
        if entries:
            contact_sheet(entries[:SHOWN], self.options.out / "contact_sheet.png")

    def _caption(
        self, model: CaptionModel, part: str, rows: Sequence[int],
        decode: Callable[[int], np.ndarray], identity: dict[str, Any],
    ) -> None:  # fmt: skip
        missing, lines = self.missing()[part], self.lines[part]
        if part == "query_captions" and not missing and not lines.entries:
            return  # there are no generated images yet
        with self.folder.recording(
            part, identity, lambda: len(set(rows) & lines.entries.keys()), len(rows)
        ):
            log.info("captioning %d pictures of %d (%s)", len(missing), len(rows), part)
            with progress_bar(part.replace("_", " "), len(missing)) as advance:
                for batch in model.caption(missing, lambda row: self._image(decode, row)):
                    texts = [(row, text) for row, text in batch if text is not None]
                    lines.append([{"row": row, "text": text} for row, text in texts])
                    advance(len(batch))

    def _image(self, decode: Callable[[int], np.ndarray], row: int) -> np.ndarray | None:
        try:
            return decode(row)
        except BadImageError as error:
            if self.config.data.on_bad_image != "skip":
                raise UserError(
                    f"{error} data.on_bad_image=skip leaves such pictures out."
                ) from error
            log.warning("left out: %s", error)
            return None

    def _decode_query_image(self, row: int) -> np.ndarray:
        file = self._query_image(row)
        return decode_image(file.read_bytes, str(file))
