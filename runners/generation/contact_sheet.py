"""Contact sheets: images side by side with their texts."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from runners.generation.output_folder import save_image

SIDE = 160  # px of an image on the sheet
SHOWN = 24  # images on a sheet
_COLUMNS, _MARGIN, _LINE, _LINES, _LETTERS = 6, 8, 13, 5, 26


def contact_sheet(entries: Sequence[tuple[Path, str]], path: Path) -> None:
    """Write a PNG of the images with their texts, perhaps of several lines, under them.

    Args:
        entries: image files and texts; at least one.
        path: of the sheet.
    """
    columns = min(_COLUMNS, len(entries))
    rows = -(-len(entries) // columns)
    wide, high = SIDE + _MARGIN, SIDE + _MARGIN + _LINE * _LINES
    sheet = Image.new("RGB", (columns * wide + _MARGIN, rows * high + _MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for i, (file, text) in enumerate(entries):
        x, y = _MARGIN + i % columns * wide, _MARGIN + i // columns * high
        with Image.open(file) as image:
            small = ImageOps.contain(image.convert("RGB"), (SIDE, SIDE))
        sheet.paste(small, (x + (SIDE - small.width) // 2, y + (SIDE - small.height) // 2))
        lines = [part for line in text.split("\n") for part in textwrap.wrap(line, _LETTERS)]
        if len(lines) > _LINES:
            lines = [*lines[: _LINES - 1], f"{lines[_LINES - 1][: _LETTERS - 1]}…"]
        for n, line in enumerate(lines):
            draw.text((x, y + SIDE + n * _LINE), line, fill="black", font=font)
    save_image(sheet, path)
