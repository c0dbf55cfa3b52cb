"""Random numbers of training rows, the same again for the same (seed, epoch, position)."""

from __future__ import annotations

import numpy as np


def uniform(seed: int, epoch: int, positions: np.ndarray, draw: int) -> np.ndarray:
    """Return one number in [0, 1) per position, float64 [B], that depends on the arguments only.

    Counter-based: the SplitMix64 finaliser (Steele, Lea & Flood, OOPSLA 2014), folded over them.
    """
    state = np.zeros(len(positions), dtype=np.uint64)
    words = (
        np.uint64(seed % 2**64),
        np.uint64(epoch),
        np.uint64(draw),
        positions.astype(np.uint64),
    )
    with np.errstate(over="ignore"):
        for word in words:
            state = (state ^ word) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)) * 2.0**-53


class Draws:
    """The numbers of one batch, one stream of them per purpose, drawn when they are asked for."""

    def __init__(self, seed: int, epoch: int, positions: np.ndarray) -> None:
        """Take what decides them: the seed, the epoch, and the positions int [B] in the split."""
        self._source = seed, epoch, positions
        self._streams: dict[int, np.ndarray] = {}

    def number(self, item: int, stream: int) -> float:
        """Return the number in [0, 1) of ``stream`` for the batch's ``item``."""
        if stream not in self._streams:
            self._streams[stream] = uniform(*self._source, stream)
        return float(self._streams[stream][item])
