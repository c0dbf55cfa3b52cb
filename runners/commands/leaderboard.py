"""The leaderboard that train, evaluate, sweep and report print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.storage.run_folder import RunFolder
    from runners.results.leaderboard import Result, Row


def show_leaderboard(
    runs: Sequence[RunFolder], csv: Path | None = None, plots: Path | None = None
) -> tuple[list[Result], list[Row], list[Path]]:
    """Print the tables of runs and the ranks of methods; write CSV and plots where a path is given.

    Returns:
        The results of the runs, their summary, and the plots written.
    """
    from runners.results import leaderboard

    results = leaderboard.collect(runs)
    rows = leaderboard.summarize(results)
    ranks = leaderboard.rank_methods(rows)
    leaderboard.print_tables(rows)
    if ranks is not None:
        leaderboard.print_ranks(ranks)
    if csv is not None:
        leaderboard.write_csv(rows, csv)
    files = []
    if plots is not None:
        files = leaderboard.plot_curves(results, plots)
        if ranks is not None:
            files.append(leaderboard.plot_ranks(ranks, plots))
    return results, rows, files
