"""The leaderboard of runs, printed and written, as train, evaluate, sweep and report want it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.storage.run_folder import RunFolder
from runners.results.leaderboard import (
    Result,
    Row,
    collect,
    grouped,
    rank_methods,
    summarize,
    write_csv,
)
from runners.results.renderers import print_ranks, print_tables
from utils.plots import line_plot, rank_plot
from utils.shown import file_word


def show_leaderboard(
    runs: Sequence[RunFolder], csv: Path | None = None, plots: Path | None = None
) -> tuple[list[Row], list[Path]]:
    """Print the tables of runs and the ranks of methods; write CSV and plots where a path is given.

    Returns:
        The summary of the runs, and the plots written.
    """
    results = collect(runs)
    rows = summarize(results)
    ranks = rank_methods(rows)
    print_tables(rows)
    if ranks is not None:
        print_ranks(ranks)
    if csv is not None:
        write_csv(rows, csv)
    files = []
    if plots is not None:
        files = plot_curves(results, plots)
        if ranks is not None:
            files.append(plots / "ranks.png")
            title = f"average rank over {ranks.datasets} datasets, by mAP"
            rank_plot(ranks.ranks, ranks.groups, ranks.difference, files[-1], title)
    return rows, files


def plot_curves(results: Sequence[Result], folder: Path) -> list[Path]:
    """Write precision against recall (by rank) as PNG per dataset, direction and bit length."""
    panels = grouped(results, "dataset", "direction", "bits")
    written = []
    for (dataset, direction, bits), members in sorted(panels.items()):
        first_seeds: dict[str, Result] = {}
        for result in sorted(members, key=lambda r: r.seed):
            first_seeds.setdefault(result.name, result)
        curves = {}
        for name, result in sorted(first_seeds.items(), key=lambda item: -item[1].map_all):
            curve = result.report["pr_rank"]
            curves[f"{name} ({result.map_all:.3f})"] = (curve["recall"], curve["precision"])
        path = folder / f"pr-{file_word(dataset)}-{file_word(direction)}-{bits}bit.png"
        line_plot(curves, path, "recall", "precision", f"{dataset}, {direction}, {bits} bits")
        written.append(path)
    return written
