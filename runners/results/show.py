"""The leaderboard of runs, printed and written, as train, evaluate, sweep and report want it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.storage.run_folder import RunFolder
from runners.results.leaderboard import Row, collect, rank_methods, summarize, write_csv
from runners.results.plots import plot_curves, plot_ranks
from runners.results.renderers import print_ranks, print_tables


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
            files.append(plot_ranks(ranks, plots))
    return rows, files
