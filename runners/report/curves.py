"""Curves and further measures of a line of the leaderboard, as means over its seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from runners.report.study import Line, Study
from runners.report.training import mean_curve


def rounded(values: Any) -> list[float | None]:
    """Return numbers with five significant digits; what is not finite becomes None."""
    array = np.asarray(values, dtype=np.float64)
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in array.tolist()]


def measures(line: Line) -> dict[str, list[float | None]]:
    """Return measure → mean and deviation over seeds, for every measure that all seeds have."""
    report = line.results[0].report
    keys: dict[str, tuple[str, ...]] = {}
    keys |= {f"mAP@{cut}": ("map", cut, "expected") for cut in report.get("map", {})}
    keys |= {f"NDCG@{cut}": ("ndcg", cut) for cut in report.get("ndcg", {})}
    keys |= {f"precision@{n}": ("precision_at", n) for n in report.get("precision_at", {})}
    keys |= {f"recall@{n}": ("recall_at", n) for n in report.get("recall_at", {})}
    keys |= {
        "precision within radius 2": ("precision_radius2",),
        "R-precision": ("r_precision",),
    }
    found = {name: [line.mean(*path), line.deviation(*path)] for name, path in keys.items()}
    return {name: values for name, values in found.items() if values[0] is not None}


def retrieval_curves(line: Line) -> dict[str, dict[str, list[float | None]]]:
    """Return precision and recall by rank and by radius, where all seeds have the same points."""
    curves = {}
    for name, at in (("pr_rank", "rank"), ("pr_radius", "radius")):
        parts = [result.report.get(name, {}) for result in line.results]
        shape = {tuple(part.get(at, ())) for part in parts}
        if len(shape) != 1 or not (points := shape.pop()):
            continue
        mean = {
            key: rounded(np.mean([part[key] for part in parts], axis=0))
            for key in ("precision", "recall")
        }
        curves[name] = {at: list(points), **mean}
    return curves


def epochs(study: Study, line: Line) -> dict[str, list[list[float | None]]]:
    """Return the training curves as [epochs, values], means over seeds."""
    kept = [study.training[result.folder] for result in line.results]
    common = [name for name in ("loss", "val", "query") if all(name in curves for curves in kept)]
    means = {name: mean_curve([curves[name] for curves in kept]) for name in common}
    return {name: [list(x), rounded(y)] for name, (x, y) in means.items() if len(x) > 1}
