"""Captions in disorder: what training does with texts that do not belong to their pictures."""

from __future__ import annotations

import numpy as np


def shuffled_captions(rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return the row whose captions each of ``rows`` [n] is handed when some are in disorder.

    A share of the rows, rounded, is drawn, and their captions go round among them: each of these
    rows is handed those of another. One row alone keeps its own.

    >>> shuffled_captions(np.array([10, 11, 12, 13]), 0.5, seed=0)
    array([10, 11, 13, 12])
    """
    drawn = np.random.RandomState([seed % 2**32, 0xCA97]).permutation(len(rows))
    drawn = drawn[: round(share * len(rows))]
    told = np.array(rows)
    told[drawn] = rows[np.roll(drawn, 1)]
    return told
