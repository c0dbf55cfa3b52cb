"""What VTPH needs: a caption of every picture, and a picture with its caption for every text query.

VTPH (models/cross_modal/vtph.py) reads a second text beside each row's own and, since a text query
must not see its own picture, a picture painted from its text. The folder::

    captions.jsonl        {"row": r, "text": ...}  a caption of the picture of every dataset row
    query_images/<r>.png  painted from the text of query row r (its first caption)
    query_captions.jsonl  {"row": r, "text": ...}  a caption of that painted picture
    contact_sheet.png     the first of them, to look at
    manifest.json         what made each of the three; dataset, split, counts, versions

Rows are the dataset's row numbers, query rows those of its split. ``--model`` alone paints and
``--captioner`` alone captions what is there, so the two may run on different machines.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset.base import BadImageError, HashDataset
from dataset.images import decode_image
from runners.generation.caption_model import KIND as CAPTIONER_KIND
from runners.generation.caption_model import MARKER as CAPTIONER_MARKER
from runners.generation.caption_model import Captioner
from runners.generation.contact_sheet import contact_sheet
from runners.generation.creatures import NAME as CREATURES
from runners.generation.image_model import KIND, MARKER, DiffusionPainter, Painter, Painting
from runners.generation.model_files import check as check_model
from runners.generation.options import Options
from runners.generation.output_folder import (
    BYTES_PER_LINE,
    BYTES_PER_PIXEL,
    Lines,
    OutputFolder,
    check_space,
    readable,
    save_picture,
    space,
)
from runners.generation.prompts import check_template, fill
from utils.errors import UserError
from utils.files import digest
from utils.progress import progress_bar

log = logging.getLogger("hashing")

PROMPT = "<text>"
SHOWN = 24  # pictures on the contact sheet


class Generation:
    """One command's work for VTPH."""

    def __init__(self, options: Options, dataset: HashDataset, on_bad_image: str = "error") -> None:
        """Check everything that can be checked before the first picture; write nothing.

        Args:
            options: of the command.
            dataset: pictures with texts.
            on_bad_image: ``error``, or ``skip``: leave out pictures that cannot be read.

        Raises:
            UserError: no texts, an empty query text, no model or a wrong one, a folder that holds
                something else.
        """
        self.options, self.dataset, self.on_bad_image = options, dataset, on_bad_image
        self.template = PROMPT if options.prompt is None else options.prompt
        check_template(self.template, "text", ("text",))
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
        self.rows = list(range(len(dataset)))[: options.limit]
        self.query = [int(row) for row in dataset.split.query][: options.limit]
        self.prompts = self._prompts()
        self.folder = OutputFolder(options.out, "vtph", describe(dataset))
        self.captions = Lines(options.out / "captions.jsonl", "row")
        self.query_captions = Lines(options.out / "query_captions.jsonl", "row")
        self.painter, self.captioner = self._models()
        if self.painter:
            self.folder.check("query_images", self._painted_by(self.painter))
        if self.captioner:
            self.folder.check("captions", self.captioner.identity)
            self.folder.check("query_captions", self._recaptioned_by(self.captioner))

    def _prompts(self) -> dict[int, str]:
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
        return {row: fill(self.template, {"text": text}) for row, text in first.items()}

    def _models(self) -> tuple[Painter | None, Captioner | None]:
        """Return what is asked for; a dry run fetches nothing from the hub."""
        options = self.options
        here = not options.dry_run
        painter = captioner = None
        if options.model and (check_model(options.model, "--model", MARKER, KIND) or here):
            painter = DiffusionPainter(options)
        given = options.captioner
        if given and (check_model(given, "--captioner", CAPTIONER_MARKER, CAPTIONER_KIND) or here):
            captioner = Captioner(options)
        return painter, captioner

    def _painted_by(self, painter: Painter) -> dict[str, Any]:
        return {**painter.identity, "prompt": self.template}

    def _recaptioned_by(self, captioner: Captioner) -> dict[str, Any]:
        """What makes the captions of painted pictures: the captioner, and what painted them."""
        painted = self.folder.made_by("query_images")
        if self.painter:
            painted = self._painted_by(self.painter)
        told = {k: v for k, v in (painted or {}).items() if k != "model"}
        return {**captioner.identity, "pictures": digest(json.dumps(told, sort_keys=True))}

    def picture_file(self, row: int) -> Path:
        """Return where the picture painted for query ``row`` lies."""
        return self.options.out / "query_images" / f"{row}.png"

    def missing(self) -> dict[str, list[int]]:
        """Return for each part the rows that are asked for and not there."""
        paint, write = bool(self.options.model), bool(self.options.captioner)
        there = {row for row in self.query if self.picture_file(row).is_file()}
        seen = set(self.query) if paint else there
        told, retold = self.captions.entries, self.query_captions.entries
        return {
            "query_images": [r for r in self.query if paint and r not in there],
            "captions": [r for r in self.rows if write and r not in told],
            "query_captions": [r for r in self.query if write and r in seen and r not in retold],
        }

    def needed(self, missing: dict[str, list[int]]) -> int:
        """Return how many bytes the missing things may take, at most."""
        side = self.painter.side if self.painter else self.options.size or 1024
        lines = len(missing["captions"]) + len(missing["query_captions"])
        pictures = len(missing["query_images"]) * side * side * BYTES_PER_PIXEL
        return pictures + lines * BYTES_PER_LINE

    def summary(self) -> list[str]:
        """Return what there is to do, line by line."""
        missing = self.missing()
        wanted = {"query_images": self.query, "captions": self.rows, "query_captions": self.query}
        lines = [
            f"{part.replace('_', ' '):15} {len(missing[part]):>8,} to make of {len(rows):,}"
            for part, rows in wanted.items()
        ]
        needed, free = readable(self.needed(missing)), readable(space(self.options.out))
        return [*lines, f"{'disk':15} {needed} at most; {free} free"]

    def run(self) -> None:
        """Make what is missing.

        Raises:
            UserError: no room, a model that cannot be loaded, a picture that cannot be read.
        """
        check_space(self.options.out, self.needed(self.missing()))
        with self.folder.writing():
            # read again: another process may have worked here until a moment ago
            self.captions = Lines(self.captions.path, "row")
            self.query_captions = Lines(self.query_captions.path, "row")
            self.captions.repair()
            self.query_captions.repair()
            if self.painter:
                self._paint(self.painter)
                self.painter = None  # its memory is the captioner's now
            if self.captioner:
                self._caption("captions", self.rows, self.captions, self.dataset.images.decode,
                              self.captioner.identity)  # fmt: skip
                self._caption("query_captions", self.query, self.query_captions, self._painted,
                              self._recaptioned_by(self.captioner))  # fmt: skip
            self._show()

    def _paint(self, painter: Painter) -> None:
        rows = self.missing()["query_images"]
        identity, done = self._painted_by(painter), len(self.query) - len(rows)
        self.folder.record("query_images", identity, done, len(self.query))
        log.info("painting %d pictures of %d", len(rows), len(self.query))
        paintings = [Painting(("row", row, 0), self.prompts[row]) for row in rows]
        try:
            with progress_bar("painting", len(rows)) as advance:
                for batch in painter.paint(paintings):
                    for painting, image in batch:
                        save_picture(image, self.picture_file(int(painting.key[1])))
                    done += len(batch)
                    advance(len(batch))
        finally:
            self.folder.record("query_images", identity, done, len(self.query))

    def _caption(
        self, part: str, wanted: Sequence[int], lines: Lines,
        decode: Callable[[int], np.ndarray], identity: dict[str, Any],
    ) -> None:  # fmt: skip
        assert self.captioner is not None
        rows = self.missing()[part]
        if part == "query_captions" and not rows and not lines.entries:
            return  # nothing is painted yet
        self.folder.record(part, identity, len(set(wanted) & lines.entries.keys()), len(wanted))
        log.info("captioning %d pictures of %d (%s)", len(rows), len(wanted), part)
        try:
            with progress_bar(part.replace("_", " "), len(rows)) as advance:
                for batch in self.captioner.caption(rows, self._or_none(decode)):
                    told = [(row, text) for row, text in batch if text is not None]
                    lines.append([{"row": row, "text": text} for row, text in told])
                    advance(len(batch))
        finally:
            done = len(set(wanted) & lines.entries.keys())
            self.folder.record(part, identity, done, len(wanted))

    def _or_none(self, decode: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray | None]:
        def load(row: int) -> np.ndarray | None:
            try:
                return decode(row)
            except BadImageError as error:
                if self.on_bad_image != "skip":
                    raise UserError(
                        f"{error} data.on_bad_image=skip leaves such pictures out."
                    ) from error
                log.warning("left out: %s", error)
                return None

        return load

    def _painted(self, row: int) -> np.ndarray:
        file = self.picture_file(row)
        return decode_image(file.read_bytes, str(file))

    def _show(self) -> None:
        told = self.query_captions.entries
        shown = [row for row in self.query if self.picture_file(row).is_file()][:SHOWN]
        if shown:
            words = [
                f"{row}: {self.prompts[row]}" + (f"\n> {told[row]['text']}" if row in told else "")
                for row in shown
            ]
            files = [self.picture_file(row) for row in shown]
            entries = list(zip(files, words, strict=True))
            contact_sheet(entries, self.options.out / "contact_sheet.png")


def describe(dataset: HashDataset) -> dict[str, Any]:
    """Return what the rows of ``dataset`` are, as JSON values that change when they do.

    ``split_hash`` is that of the dataset's own split, before validation rows are cut from it.
    """
    texts = [text for row in dataset.texts or [] for text in (*row, "")]
    return {
        "name": dataset.name,
        "rows": len(dataset),
        "images": dataset.images.fingerprint,
        "texts": digest(*texts) if dataset.texts is not None else None,
        "split_hash": dataset.split.hash,
    }
