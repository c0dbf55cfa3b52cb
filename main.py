"""The command line: ``python main.py COMMAND --help`` says what each command takes."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError
from utils.logs import log_to_stderr

KINDS = ("methods", "models", "losses", "backbones", "datasets", "runners", "optimizers", "sweeps")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 2 the user's mistake, 1 anything else."""
    options = _parse(arguments)
    log_to_stderr()
    try:
        return options.command(options) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; nothing to report
        return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse; argparse alone would refuse ``key=value`` words that stand behind an option."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    strange = [word for word in rest if word.startswith("-") or not hasattr(options, "settings")]
    if strange:
        parser.error(f"unrecognized arguments: {' '.join(strange)}")
    if rest:
        options.settings = [*options.settings, *rest]
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="main.py", description="Deep hashing for image and cross-modal retrieval: a benchmark."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: object, summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(command=function)
        return command

    command = add("list", list_command, "what is registered")
    command.add_argument("kind", nargs="?", choices=KINDS, help="all kinds when left out")
    command.add_argument("--json", action="store_true", help="machine-readable")
    command.add_argument("--plugin", action="append", default=[], metavar="FILE.py")

    command = add("train", train_command, "train one method and evaluate it; resumes")
    _settings(command, "method=dcmht dataset=creatures_scenes bits=32 seed=0")
    command.add_argument("--config", metavar="FILE", help="YAML, e.g. a run's config.yaml")
    command.add_argument("--print-config", action="store_true", help="show the settings only")

    command = add("evaluate", evaluate_command, "measure a finished run's codes again")
    command.add_argument("run", metavar="RUN_DIR")
    _settings(command, "eval.at=[all,1000]")

    command = add("metrics", metrics_command, "measure codes from anywhere (npz files)")
    command.add_argument("--query", required=True, metavar="Q.npz", help="codes and labels")
    command.add_argument("--database", required=True, metavar="D.npz", help="codes and labels")
    command.add_argument("--at", default="all", help="cut-offs of mAP, e.g. all,1000")
    command.add_argument(
        "--no-relevant",
        choices=("zero", "skip"),
        default="zero",
        help="queries without a relevant row: count 0 in the mean, or leave out",
    )
    command.add_argument("--json", metavar="FILE|-", help="write metrics as JSON (- = to stdout)")

    command = add("sweep", sweep_command, "run a grid of settings; skips what is done")
    command.add_argument("sweep", metavar="SWEEP.yaml", help="a file, or a name of `list sweeps`")
    _settings(command, "runner.epochs=10")
    command.add_argument("--output", metavar="DIR", help="folder of the runs instead of the file's")
    command.add_argument("--workers", type=int, help="processes side by side")
    command.add_argument("--launcher", choices=("local",), default="local")
    command.add_argument("--dry-run", action="store_true", help="list the runs only")

    command = add("report", report_command, "leaderboard of all finished runs in a folder")
    command.add_argument("runs", metavar="RUNS_DIR")
    command.add_argument("--csv", metavar="FILE", help="write the table as CSV as well")
    command.add_argument("--plots", metavar="DIR", help="write precision-recall curves there")

    command = add("check", check_command, "is this method sound? trains it briefly on toy data")
    command.add_argument("target", metavar="METHOD|FILE.py")
    _settings(command, "loss.name=my_loss")
    return parser


def _settings(command: argparse.ArgumentParser, example: str) -> None:
    command.add_argument("settings", nargs="*", metavar="key=value", help=f"for example: {example}")


def list_command(options: argparse.Namespace) -> None:
    """Print the registered names, with a line on each."""
    from runners.listing import listing, print_listing

    tables = listing([options.kind] if options.kind else list(KINDS), options.plugin)
    if options.json:
        print(json.dumps(tables, indent=2))
    else:
        print_listing(tables)


def train_command(options: argparse.Namespace) -> None:
    """Train one run; the last line printed is its folder."""
    from common.config import compose

    config = compose(options.settings, options.config)
    if options.print_config:
        import yaml

        print(yaml.safe_dump(dict(config.resolved), sort_keys=False), end="")
        return
    from runners.base import run_config
    from runners.leaderboard import collect, print_tables, summarize

    folder = run_config(config)
    if os.environ.get("RANK", "0") != "0":
        return  # under torchrun the first process reports; its files may not be complete yet
    print_tables(summarize(collect([folder])))
    print(folder.path)


def evaluate_command(options: argparse.Namespace) -> None:
    """Recompute the metrics of a run from its codes."""
    from runners.leaderboard import collect, print_tables, summarize
    from runners.reevaluation import reevaluate

    print_tables(summarize(collect([reevaluate(options.run, options.settings)])))


def metrics_command(options: argparse.Namespace) -> None:
    """Measure two files of codes."""
    from common.codes_file import compare_files
    from runners.metric_table import print_metrics
    from utils.files import write_json

    result = compare_files(
        options.query, options.database, options.at.split(","), no_relevant=options.no_relevant
    )
    if options.json == "-":
        print(json.dumps(result, indent=2, allow_nan=False))
        return
    print_metrics(result)
    if options.json:
        write_json(Path(options.json), result)


def sweep_command(options: argparse.Namespace) -> int:
    """Run a sweep and print its leaderboard; exit code 1 when a run failed."""
    from runners.sweep import expand, read_sweep, run_sweep, sweep_file

    path = sweep_file(options.sweep)
    sweep = read_sweep(path)
    configs = expand(sweep, path, options.settings, options.output)
    if options.dry_run:
        from common.run_store import RunFolder

        for config in configs:
            folder = RunFolder(Path(config.output) / config.run_name)
            print(f"{folder.status().get('state', 'to do'):12} {config.run_name}")
        return 0
    workers = sweep.workers if options.workers is None else options.workers
    outcomes = run_sweep(configs, workers)
    failed = [o for o in outcomes if o.state == "failed"]
    ended = [Path(o.config.output) / o.config.run_name for o in outcomes if o not in failed]
    _leaderboard(ended, Path(options.output or sweep.output))
    for reason in dict.fromkeys(outcome.reason for outcome in failed):
        names = [o.config.run_name for o in failed if o.reason == reason]
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        print(f"failed: {names[0]}{others}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def _leaderboard(runs: list[Path], output: Path) -> None:
    from common.run_store import RunFolder
    from runners.leaderboard import collect, plot_curves, print_tables, summarize, write_csv

    if not runs:
        return
    results = collect([RunFolder(path) for path in runs])
    rows = summarize(results)
    print_tables(rows)
    write_csv(rows, output / "leaderboard.csv")
    plots = plot_curves(results, output / "plots")
    print(f"{output / 'leaderboard.csv'}\n{len(plots)} plots in {output / 'plots'}")


def report_command(options: argparse.Namespace) -> None:
    """Print the leaderboard of finished runs."""
    from runners.leaderboard import (
        collect,
        find_runs,
        plot_curves,
        print_tables,
        summarize,
        write_csv,
    )  # fmt: skip

    results = collect(find_runs(options.runs))
    rows = summarize(results)
    print_tables(rows)
    if options.csv:
        write_csv(rows, Path(options.csv))
    if options.plots:
        plot_curves(results, Path(options.plots))


def check_command(options: argparse.Namespace) -> int:
    """Check a method, or all that a plugin file registers."""
    from runners.check import check

    return 0 if check(options.target, options.settings) else 1


if __name__ == "__main__":
    sys.exit(main())
