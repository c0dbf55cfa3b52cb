"""Figures of matrices and of counts for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NAMES = 40  # that can be read along an axis


def heat_maps(matrices: Mapping[str, np.ndarray], names: Sequence[str] = ()) -> Figure:
    """Return matrices [C,C] side by side, coloured from -1 (blue) over 0 (white) to 1 (red).

    ``names`` of the C rows are written only where there is room.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(matrices), 5.6), layout="constrained")
    all_axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axes, (title, matrix) in zip(all_axes, matrices.items(), strict=True):
        image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        axes.set_title(title)
        if len(names) == len(matrix) <= MOST_NAMES:
            ticks = np.arange(len(names))
            plain = [name.replace("$", r"\$") for name in names]
            axes.set_xticks(ticks, plain, rotation=90, fontsize="small")
            axes.set_yticks(ticks, plain, fontsize="small")
    figure.colorbar(image, ax=all_axes.tolist(), shrink=0.8)
    return figure


def distance_histogram(distances: np.ndarray, bits: int, required: int | None = None) -> Figure:
    """Return how many pairs have which of P Hamming distances, and a line at the least required."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    counts = np.bincount(np.asarray(distances, dtype=np.int64), minlength=bits + 1)
    axes.bar(np.arange(len(counts)), counts, width=0.9)
    if required is not None:
        axes.axvline(required - 0.5, color="black", linestyle="--", label=f"{required} asked")
        axes.legend(frameon=False)
    axes.set(xlabel="Hamming distance of two centres", ylabel="pairs", xlim=(-1, bits + 1))
    return figure
