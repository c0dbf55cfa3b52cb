"""``main.py evaluate``: recompute the metrics of a run from its codes."""

from __future__ import annotations

import argparse

from runners.commands.arguments import add_accept_changed, add_settings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``evaluate``."""
    parser.add_argument("run", metavar="RUN_DIR")
    add_settings(parser, "eval.at=[all,1000]")
    add_accept_changed(parser)


def run(options: argparse.Namespace) -> None:
    """Write the metrics of a run again, and print them."""
    from runners.evaluation.reevaluate import reevaluate
    from runners.results.metric_table import print_cuts
    from runners.results.show import show_leaderboard

    folder = reevaluate(options.run, options.settings, options.accept_changed)
    show_leaderboard([folder])
    print_cuts(folder.metrics()["directions"])
