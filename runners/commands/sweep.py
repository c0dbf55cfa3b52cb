"""``main.py sweep``: run a grid of settings and print its leaderboard."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from runners.commands.arguments import add_settings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``sweep``."""
    parser.add_argument("sweep", metavar="SWEEP.yaml", help="a file, or a name of `list sweeps`")
    add_settings(parser, "runner.epochs=10")
    parser.add_argument("--output", metavar="DIR", help="folder of the runs instead of the file's")
    parser.add_argument(
        "--workers", type=_workers, metavar="N|auto", help="side by side; auto = one for each GPU"
    )
    parser.add_argument("--launcher", choices=("local", "ray", "submitit"), default="local")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and the time left")
    parser.add_argument(
        "--retry-failed", action="store_true", help="also runs that failed too often before"
    )


def _workers(word: str) -> int | str:
    return word if word == "auto" else int(word)


def run(options: argparse.Namespace) -> int:
    """Run the sweep; exit code 1 when a run failed."""
    from runners.results.show import show_leaderboard
    from runners.sweeps.queue import folder_of
    from runners.sweeps.status import print_statuses, statuses, summary
    from runners.sweeps.sweep import expand, read_sweep, run_sweep, sweep_file
    from utils.signals import terminated_like_ctrl_c

    path = sweep_file(options.sweep)
    sweep = read_sweep(path)
    configs = expand(sweep, path, options.settings, options.output)
    workers = sweep.workers if options.workers is None else options.workers
    if options.dry_run:
        states = statuses(configs, sweep.retries, options.retry_failed)
        print_statuses(states)
        print(summary(states, workers), file=sys.stderr)
        return 0
    with terminated_like_ctrl_c():  # the workers are stopped too
        outcomes = run_sweep(
            configs, workers, launcher=options.launcher, rules=sweep.rules, launch=sweep.launch,
            again=options.retry_failed,
        )  # fmt: skip
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    ended = [folder_of(outcome.config) for outcome in outcomes if outcome.state != "failed"]
    if ended:
        output = Path(options.output or sweep.output)
        csv, plots = output / "leaderboard.csv", output / "plots"
        files = show_leaderboard(ended, csv, plots)[1]
        print(f"{csv}\n{len(files)} plots in {plots}")
    for reason in dict.fromkeys(outcome.reason for outcome in failed):
        names = [outcome.config.run_name for outcome in failed if outcome.reason == reason]
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        print(f"failed: {names[0]}{others}: {reason}", file=sys.stderr)
    return 1 if failed else 0
