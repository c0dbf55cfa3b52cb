"""Curves and further measures of a row of the leaderboard, as means over its seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from runners.report.study import Study
from runners.report.training import mean_curve
from runners.results.leaderboard import Row


def rounded(values: Any) -> list[float | None]:
    """Return numbers with five significant digits; what is not finite becomes None."""
    array = np.asarray(values, dtype=np.float64)
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in array.tolist()]


def measures(row: Row) -> dict[str, list[float | None]]:
    """Return measure → mean and deviation over seeds, for every measure that all seeds have."""
    report = row.results[0].report
    keys: dict[str, tuple[str, ...]] = {}
    keys |= {f"mAP@{cut}": ("map", cut, "expected") for cut in report.get("map", {})}
    keys |= {f"NDCG@{cut}": ("ndcg", cut) for cut in report.get("ndcg", {})}
    keys |= {f"precision@{n}": ("precision_at", n) for n in report.get("precision_at", {})}
    keys |= {f"recall@{n}": ("recall_at", n) for n in report.get("recall_at", {})}
    keys |= {
        "precision within radius 2": ("precision_radius2",),
        "R-precision": ("r_precision",),
    }
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
        mean = {
            key: rounded(np.mean([part[key] for part in parts], axis=0))
            for key in ("precision", "recall")
        }
        curves[name] = {axis: list(points), **mean}
    return curves


def epochs(study: Study, row: Row) -> dict[str, list[list[float | None]]]:
    """Return the training curves as [epochs, values], means over seeds."""
    runs = [study.training[result.folder] for result in row.results]
    common = [name for name in ("loss", "val", "query") if all(name in curves for curves in runs)]
    means = {name: mean_curve([curves[name] for curves in runs]) for name in common}
    return {name: [list(x), rounded(y)] for name, (x, y) in means.items() if len(x) > 1}
