"""``main.py sweep``: run a grid of settings and print its leaderboard."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runners.commands.arguments import add_accept_changed, add_settings
from utils.errors import UserError
from utils.shown import brief
from utils.terminal import say, say_error

if TYPE_CHECKING:
    from common.config.run_config import RunConfig


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
        "--smoke",
        action="store_true",
        help="try every run on a few rows, in minutes; keeps nothing",
    )
    parser.add_argument(
        "--every-seed", action="store_true", help="of a smoke: runs that differ in their seed, too"
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="also runs that failed too often before"
    )
    add_accept_changed(parser)


def _workers(word: str) -> int | str:
    if word != "auto" and not (word.isdecimal() and len(word) < 5):
        raise argparse.ArgumentTypeError(f"{brief(word)} is neither auto nor a number of workers")
    return word if word == "auto" else int(word)


def _smoke(configs: Sequence[RunConfig], options: argparse.Namespace, output: Path) -> int:
    """Try the runs in miniature; exit code 1: a fault of the program, 2: for the user to mend."""
    from runners.sweeps.smoke import one_seed, smoke
    from runners.sweeps.smoke_table import exit_code, print_trials, sentence
    from utils.signals import terminated_like_ctrl_c

    if not options.smoke:
        raise UserError("--every-seed belongs to --smoke; give both, or neither.")
    others = {
        f"--launcher {options.launcher}": options.launcher != "local",
        f"--workers {options.workers}": options.workers not in (None, 1),
        "--dry-run": options.dry_run,
        "--retry-failed": options.retry_failed,
        "--accept-changed": options.accept_changed,
    }
    for words in (words for words, given in others.items() if given):
        raise UserError(f"--smoke tries runs one by one in this process; leave {words} out.")
    chosen = list(configs) if options.every_seed else one_seed(configs)
    with terminated_like_ctrl_c():  # so that nothing stays behind
        trials = smoke(chosen, output)
    print_trials(trials)
    say(sentence(trials, len(configs) - len(chosen)))
    return exit_code(trials)


def run(options: argparse.Namespace) -> int:
    """Run the sweep; exit code 1 when a run failed."""
    from runners.results.show import show_leaderboard
    from runners.sweeps.launchers.base import check_library
    from runners.sweeps.overrides import described
    from runners.sweeps.queue import folder_of
    from runners.sweeps.status import print_statuses, statuses, summary
    from runners.sweeps.sweep import check_workers, planned, read_sweep, run_sweep, sweep_file
    from utils.signals import terminated_like_ctrl_c

    path = sweep_file(options.sweep)
    sweep = read_sweep(path)
    runs = planned(sweep, path, options.settings, options.output)
    configs = [run.config for run in runs]
    if options.smoke or options.every_seed:
        return _smoke(configs, options, Path(options.output or sweep.output))
    rules = dataclasses.replace(sweep.rules, accept_changed=options.accept_changed)
    again = options.retry_failed or options.accept_changed  # refused before is failed before
    workers = sweep.workers if options.workers is None else options.workers
    check_workers(workers)
    check_library(options.launcher)
    if sweep.paper is not None:
        _refuse_other_counts(options.sweep, configs)
    if options.dry_run:
        states = statuses(configs, sweep.retries, again)
        print_statuses(states, [described(run.overrides, sweep.overrides) for run in runs])
        say_error(summary(states, workers))
        return 0
    with terminated_like_ctrl_c():  # the workers are stopped too
        outcomes = run_sweep(
            configs, workers, launcher=options.launcher, rules=rules, launch=sweep.launch,
            again=again,
        )  # fmt: skip
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    ended = [folder_of(outcome.config) for outcome in outcomes if outcome.state != "failed"]
    if ended:
        output = Path(options.output or sweep.output)
        csv, plots = output / "leaderboard.csv", output / "plots"
        files = show_leaderboard(ended, csv, plots)[1]
        say(csv, f"{len(files)} plots in {plots}")
    for reason in dict.fromkeys(outcome.reason for outcome in failed):
        names = [outcome.config.run_name for outcome in failed if outcome.reason == reason]
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        say_error(f"failed: {names[0]}{others}: {reason}")
    return 1 if failed else 0


def _refuse_other_counts(name: str, configs: Sequence[RunConfig]) -> None:
    """Hold the datasets of a paper's sweep to the published counts.

    Raises:
        UserError: a prepared dataset has others.
    """
    from runners.doctor.data import check_datasets

    for finding in check_datasets(configs)[0]:
        if finding.state == "differs":
            raise UserError(
                f"{name} repeats a paper, and {finding.name} does not fit: "
                f"{finding.found.rstrip('.')}; {finding.get}, or give numbers of your own "
                "(dataset.split.query, dataset.split.train)."
            )
