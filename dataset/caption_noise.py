"""Caption noise: a share of the training rows gets the captions of other rows."""

from __future__ import annotations

import numpy as np


def shuffled_captions(rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return for each of ``rows`` [n] the row whose captions it gets.

    A share of the rows, rounded, is drawn, and their captions are rotated among them: each drawn
    row gets those of another. A single drawn row keeps its captions.

    >>> shuffled_captions(np.array([10, 11, 12, 13]), 0.5, seed=0)
    array([10, 11, 13, 12])
    """
    drawn = np.random.RandomState([seed % 2**32, 0xCA97]).permutation(len(rows))
    drawn = drawn[: round(share * len(rows))]
    caption_rows = np.array(rows)
    caption_rows[drawn] = rows[np.roll(drawn, 1)]
    return caption_rows
