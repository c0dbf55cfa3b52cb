"""Plots of a set of runs as PNG: precision against recall, and ranks over datasets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runners.results.leaderboard import Result, label
from runners.results.significance import Ranking


def plot_curves(results: Sequence[Result], folder: Path) -> list[Path]:
    """Write precision against recall (by rank) as PNG per dataset, direction and bit length."""
    from utils.plots import line_plot

    panels: dict[tuple[str, str, int], list[Result]] = {}
    for result in results:
        panels.setdefault((result.dataset, result.direction, result.bits), []).append(result)
    written = []
    for (dataset, direction, bits), members in sorted(panels.items()):
        first_seeds: dict[str, Result] = {}
        for result in sorted(members, key=lambda r: r.seed):
            first_seeds.setdefault(label(result), result)
        curves = {}
        for name, result in sorted(first_seeds.items(), key=lambda item: -item[1].map_all):
            curve = result.report["pr_rank"]
            curves[f"{name} ({result.map_all:.3f})"] = (curve["recall"], curve["precision"])
        path = folder / f"pr-{dataset}-{direction}-{bits}bit.png"
        line_plot(curves, path, "recall", "precision", f"{dataset}, {direction}, {bits} bits")
        written.append(path)
    return written


def plot_ranks(ranks: Ranking, folder: Path) -> Path:
    """Write the critical-difference diagram as PNG."""
    from utils.plots import rank_plot

    path = folder / "ranks.png"
    title = f"average rank over {ranks.datasets} datasets, by mAP"
    rank_plot(ranks.ranks, ranks.groups, ranks.difference, path, title)
    return path
