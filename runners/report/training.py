"""Curves over epochs, from the history of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from runners.training.history import read_history

Curve = tuple[list[int], list[float]]
"""Epochs from 1, and a value at each."""

POINTS = 100  # of a curve on the page, at most


def training_curves(run: Path) -> dict[str, Curve]:
    """Return ``loss``, and ``val`` or ``query``: mAP on the rows that the epoch is selected by.

    A run of a version that wrote no history has no curve.
    """
    values: dict[str, dict[int, float]] = {}
    for record in read_history(run):
        values.setdefault("loss", {})[record.epoch] = record.loss["total"]
        if record.measured is not None:
            values.setdefault(record.measured.on, {})[record.epoch] = record.measured.score
    curves = {name: (list(curve), list(curve.values())) for name, curve in values.items()}
    return {name: _subsampled(curve) for name, curve in curves.items() if len(curve[0]) > 1}


def mean_curve(curves: list[Curve]) -> Curve:
    """Return the mean over runs at the epochs that all of them have."""
    by_epoch = [dict(zip(*curve, strict=True)) for curve in curves]
    common = sorted(set.intersection(*(set(values) for values in by_epoch)))
    return common, [float(np.mean([values[e] for values in by_epoch])) for e in common]


def _subsampled(curve: Curve) -> Curve:
    epochs, values = curve
    if len(epochs) <= POINTS:
        return curve
    chosen = np.unique(np.linspace(0, len(epochs) - 1, POINTS).round().astype(int))
    return [epochs[i] for i in chosen], [values[i] for i in chosen]
