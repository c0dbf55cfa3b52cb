"""A sheet of retrieved rows: one query a line, its nearest rows beside it."""

from __future__ import annotations

import dataclasses
import io
import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from common.directions import sides
from dataset.base import BadImageError, HashDataset
from runners.evaluation.nearest import Hit

SIDE = 72  # px of an image
TOP = 10  # rows shown of each query
_FRAME, _GAP, _LINE, _LETTERS = 3, 6, 11, 13
_RIGHT, _WRONG = "#00735a", "#b54708"  # as on the report page; distinct in any colour vision
_WORDS = 9  # px


@dataclasses.dataclass
class Sheets:
    """Draws sheets; thumbnails stay in memory, for most are shown again the next time."""

    dataset: HashDataset
    _thumbnails: dict[int, Image.Image] = dataclasses.field(default_factory=dict)

    def draw(self, direction: str, lines: Sequence[tuple[int, Sequence[Hit]]]) -> Image.Image:
        """Return the sheet of ``lines``: the row of each query, and its nearest rows.

        A right row has a plain frame and a tick, a wrong one a broken frame and a cross, each with
        its Hamming distance. A text is shown as its caption.
        """
        of_query, of_database = sides(direction)
        step, high = SIDE + 2 * _FRAME + _GAP, SIDE + 2 * _FRAME + 2 * _LINE + _GAP
        columns = 1 + max(len(hits) for _, hits in lines)
        size = (3 * _GAP + columns * step, _GAP + len(lines) * high)
        sheet = Image.new("RGB", size, "white")
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_WORDS)
        for number, (row, hits) in enumerate(lines):
            y = _GAP + number * high
            self._paste(sheet, row, of_query, (_GAP + _FRAME, y + _FRAME))
            under = y + SIDE + 2 * _FRAME
            name = textwrap.wrap(self._classes(row), _LETTERS)[:2]
            draw.text((_GAP + _FRAME, under), "\n".join(name), "black", font)
            for column, hit in enumerate(hits, 1):
                x = 3 * _GAP + column * step  # a wider gap beside the query
                self._paste(sheet, hit.row, of_database, (x + _FRAME, y + _FRAME))
                _frame(draw, (x, y), hit.right)
                colour = _RIGHT if hit.right else _WRONG
                _sign(draw, (x + _FRAME, under + 2), hit.right, colour)
                draw.text((x + _FRAME + 12, under), f"d = {hit.distance}", colour, font)
        return sheet

    def _classes(self, row: int) -> str:
        marked = np.flatnonzero(self.dataset.labels[row] > 0)
        return ", ".join(self.dataset.class_names[c] for c in marked)

    def _paste(self, sheet: Image.Image, row: int, modality: str, corner: tuple[int, int]) -> None:
        if modality == "text":
            text = self.dataset.texts[row][0] if self.dataset.texts is not None else ""
            lines = textwrap.wrap(text, _LETTERS, max_lines=SIDE // _LINE, placeholder="…")
            font = ImageFont.load_default(_WORDS)
            ImageDraw.Draw(sheet).multiline_text(
                (corner[0] + 1, corner[1]), "\n".join(lines), "black", font, spacing=1
            )
            return
        if row not in self._thumbnails:
            self._thumbnails[row] = self._thumbnail(row)
        sheet.paste(self._thumbnails[row], corner)

    def _thumbnail(self, row: int) -> Image.Image:
        try:
            image = Image.fromarray(self.dataset.images.decode(row))
        except (BadImageError, OSError):
            return Image.new("RGB", (SIDE, SIDE), "#dddddd")
        sampling = Image.Resampling  # tiny images stay sharp
        method = sampling.NEAREST if max(image.size) < SIDE else sampling.BICUBIC
        return ImageOps.pad(image, (SIDE, SIDE), method, "white")


def as_jpeg(sheet: Image.Image) -> bytes:
    """Return an image as JPEG: a tenth of the bytes of a PNG."""
    stream = io.BytesIO()
    sheet.save(stream, "JPEG", quality=70)
    return stream.getvalue()


def _frame(draw: ImageDraw.ImageDraw, corner: tuple[int, int], right: bool) -> None:
    x, y, side = *corner, SIDE + 2 * _FRAME
    if right:
        draw.rectangle((x, y, x + side - 1, y + side - 1), outline=_RIGHT, width=_FRAME)
        return
    for start in range(0, side, 10):  # broken
        ends = (start, min(start + 5, side - 1))
        for low in (0, side - _FRAME):
            draw.rectangle((x + ends[0], y + low, x + ends[1], y + low + _FRAME - 1), _WRONG)
            draw.rectangle((x + low, y + ends[0], x + low + _FRAME - 1, y + ends[1]), _WRONG)


def _sign(draw: ImageDraw.ImageDraw, corner: tuple[int, int], right: bool, colour: str) -> None:
    """Draw a tick or a cross of 8 px; fonts need not have them."""
    x, y = corner
    if right:
        draw.line(((x, y + 4), (x + 3, y + 7), (x + 8, y)), colour, 2)
    else:
        draw.line(((x, y), (x + 7, y + 7)), colour, 2)
        draw.line(((x, y + 7), (x + 7, y)), colour, 2)
