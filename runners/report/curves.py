"""Measures and curves of a row of the leaderboard, as means over its seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from runners.results.leaderboard import Row
from runners.training.history import read_history

Curve = tuple[list[int], list[float]]
"""Epochs from 1, and a value at each."""

POINTS = 100  # of a curve on the page, at most


def rounded(values: Any) -> list[float | None]:
    """Return numbers with five significant digits; what is not finite becomes None."""
    array = np.asarray(values, dtype=np.float64)
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in array.tolist()]


def measures(row: Row) -> dict[str, list[float | None]]:
    """Return measure → mean and deviation over seeds, for every measure that all seeds have."""
    report = row.results[0].report
    by_rank = {"NDCG": "ndcg", "precision": "precision_at", "recall": "recall_at"}
    keys: dict[str, tuple[str, ...]] = {
        **{f"mAP@{cut}": ("map", cut, "expected") for cut in report["map"]},
        **{f"mAP, {name}": ("compat", name) for name in report.get("compat", {})},
        **{f"{name}@{n}": (key, n) for name, key in by_rank.items() for n in report.get(key, {})},
        "precision within radius 2": ("precision_radius2",), "R-precision": ("r_precision",),
    }  # fmt: skip
    values = {name: list(row.over_seeds(*path)) for name, path in keys.items()}
    return {name: pair for name, pair in values.items() if pair[0] is not None}


def retrieval_curves(row: Row) -> dict[str, dict[str, list[float | None]]]:
    """Return precision and recall by rank and by radius, where all seeds have the same points."""
    curves = {}
    for name, axis in (("pr_rank", "rank"), ("pr_radius", "radius")):
        parts = [result.report.get(name, {}) for result in row.results]
        axes = {tuple(part.get(axis, ())) for part in parts}
        if len(axes) != 1 or not (points := axes.pop()):
            continue
        curves[name] = {axis: list(points)}
        for key in ("precision", "recall"):
            curves[name][key] = rounded(np.mean([part[key] for part in parts], axis=0))
    return curves


def epochs(row: Row) -> dict[str, list[list[float | None]]]:
    """Return the training curves as [epochs, values], means over seeds."""
    runs = [training_curves(result.folder) for result in row.results]
    common = [name for name in ("loss", "val", "query") if all(name in curves for curves in runs)]
    means = {name: mean_curve([curves[name] for curves in runs]) for name in common}
    return {name: [list(x), rounded(y)] for name, (x, y) in means.items() if len(x) > 1}


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
    count = len(epochs)
    chosen = np.linspace(0, count - 1, min(count, POINTS)).round().astype(int)
    return [epochs[i] for i in chosen], [values[i] for i in chosen]
