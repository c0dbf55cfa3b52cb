"""``main.py report``: print the leaderboard of finished runs, and write it in other forms."""

from __future__ import annotations

import argparse
from pathlib import Path

from utils.terminal import say


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``report``."""
    parser.add_argument("runs", metavar="RUNS_DIR")
    parser.add_argument("--csv", metavar="FILE", help="write the table as CSV as well")
    parser.add_argument("--plots", metavar="DIR", help="write precision-recall curves there")
    parser.add_argument("--html", metavar="FILE", help="one page with tables, charts, pictures")
    parser.add_argument("--markdown", metavar="FILE", help="the tables as Markdown")
    parser.add_argument("--latex", metavar="FILE", help="the tables as LaTeX")
    parser.add_argument(
        "--published", metavar="FILE.csv", help="published numbers to set beside ours"
    )
    parser.add_argument(
        "--queries", type=int, default=6, metavar="N", help="shown of each dataset; 0: no pictures"
    )


def run(options: argparse.Namespace) -> None:
    """Print the leaderboard and write the files that are named."""
    from runners.report.files import write_report
    from runners.report.published import read_published
    from runners.results.leaderboard import find_runs
    from runners.results.show import show_leaderboard

    published = None if options.published is None else read_published(options.published)
    csv, plots = (Path(path) if path else None for path in (options.csv, options.plots))
    rows, _ = show_leaderboard(find_runs(options.runs), csv, plots)
    for path in write_report(
        Path(options.runs), rows, html=options.html, markdown=options.markdown,
        latex=options.latex, published=published, queries=options.queries,
    ):  # fmt: skip
        say(path)
