"""Caption noise: a share of the training rows gets the captions of other rows, as in VTPH."""

from __future__ import annotations

import random

import numpy as np

INNER_SEED = 1
"""Of the order within the chosen rows, whatever the run's seed: VTPH's."""


def shuffled_captions(rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return for each of ``rows`` [n] the row whose captions it gets.

    The first of all positions, shuffled by Python's generator, are a share of the rows, rounded
    down; their captions are permuted among them by NumPy's, so that some may keep their own. VTPH
    does not seed the former; here ``seed`` does.

    >>> shuffled_captions(np.array([10, 11, 12, 13]), 0.75, seed=2)
    array([10, 11, 13, 12])
    """
    positions = list(range(len(rows)))
    random.Random(seed).shuffle(positions)
    chosen = np.array(positions[: int(share * len(rows))], dtype=np.int64)
    caption_rows = np.array(rows)
    caption_rows[chosen] = rows[np.random.RandomState(INNER_SEED).permutation(chosen)]
    return caption_rows
