"""Contact sheets."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from runners.generation.contact_sheet import SIDE, contact_sheet


@pytest.mark.parametrize("count", [1, 6, 7])
def test_every_picture_is_on_the_sheet(count, tmp_path):
    colours = [(10 + 30 * i, 250 - 30 * i, 7 * i) for i in range(count)]
    for i, colour in enumerate(colours):
        Image.new("RGB", (20 + i, 10), colour).save(tmp_path / f"{i}.png")
    texts = ["", "one", "two\nlines", "a " * 300, "x" * 200, "日本 $", "\n"]
    contact_sheet([(tmp_path / f"{i}.png", texts[i]) for i in range(count)], tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png")).reshape(-1, 3)
    for i, colour in enumerate(colours):  # enlarged, in proportion
        shown = (sheet == colour).all(1).sum()
        assert abs(shown - SIDE * SIDE * 10 / (20 + i)) <= SIDE
