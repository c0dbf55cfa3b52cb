"""The command line: ``python main.py COMMAND --help`` says what each command takes."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.logs import log_to_stderr

KINDS = ("methods", "models", "losses", "backbones", "datasets", "runners", "optimizers", "sweeps")
CODES_HELP = "npz, npy or HDF5 with codes and labels; FILE.h5:query/image for a part of a file"


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

    _metrics_options(add("metrics", metrics_command, "measure codes from anywhere"))

    command = add("export", export_command, "write codes as an index for serving")
    command.add_argument("codes", metavar="CODES", help=CODES_HELP)
    command.add_argument("--faiss", required=True, metavar="FILE", help="FAISS binary index")
    command.add_argument("--kind", choices=("flat", "ivf", "hnsw"), default="flat")

    command = add("encode", encode_command, "codes of your own pictures or texts by a run")
    command.add_argument("run", metavar="RUN_DIR")
    command.add_argument("--images", metavar="DIR", help="folder of pictures")
    command.add_argument("--texts", metavar="FILE", help="texts, one a line")
    command.add_argument("--out", required=True, metavar="FILE", help=".h5 or .npz, with ids")
    command.add_argument("--device", help="where to encode; a GPU where there is one if left out")

    _search_options(add("search", search_command, "the nearest pictures or texts, by a run"))

    command = add("sweep", sweep_command, "run a grid of settings; skips what is done")
    command.add_argument("sweep", metavar="SWEEP.yaml", help="a file, or a name of `list sweeps`")
    _settings(command, "runner.epochs=10")
    command.add_argument("--output", metavar="DIR", help="folder of the runs instead of the file's")
    command.add_argument(
        "--workers", type=_workers, metavar="N|auto", help="side by side; auto = one for each GPU"
    )
    command.add_argument("--launcher", choices=("local", "ray", "submitit"), default="local")
    command.add_argument("--dry-run", action="store_true", help="list the runs and the time left")
    command.add_argument(
        "--retry-failed", action="store_true", help="also runs that failed too often before"
    )

    command = add("report", report_command, "leaderboard of all finished runs in a folder")
    command.add_argument("runs", metavar="RUNS_DIR")
    command.add_argument("--csv", metavar="FILE", help="write the table as CSV as well")
    command.add_argument("--plots", metavar="DIR", help="write precision-recall curves there")
    command.add_argument("--html", metavar="FILE", help="one page with tables, charts, pictures")
    command.add_argument("--markdown", metavar="FILE", help="the tables as Markdown")
    command.add_argument("--latex", metavar="FILE", help="the tables as LaTeX")
    command.add_argument(
        "--published", metavar="FILE.csv", help="published numbers to set beside ours"
    )
    command.add_argument(
        "--queries", type=int, default=6, metavar="N", help="shown of each dataset; 0: no pictures"
    )

    command = add("prepare", prepare_command, "index a dataset's official files; resumes")
    command.add_argument("dataset", metavar="DATASET", help="coco, flickr25k, nuswide, …")
    _settings(command, "dataset.split.lists=DIR")
    command.add_argument("--root", metavar="DIR", help="folder of its archives, or to put them in")
    command.add_argument("--download", action="store_true", help="fetch what its host offers")

    command = add("verify", verify_command, "is a dataset what its protocol says? exit code 1: no")
    command.add_argument("dataset", metavar="DATASET", help="a name of `list datasets`, or a YAML")
    _settings(command, "dataset.split.name=mith")
    command.add_argument("--root", metavar="DIR", help="its folder")
    command.add_argument(
        "--quick", action="store_true", help="open no picture, read no official file"
    )

    _generate_options(add("generate", generate_command, "pictures and captions by models; resumes"))

    command = add("check", check_command, "is this method sound? trains it briefly on toy data")
    command.add_argument("target", metavar="METHOD|FILE.py")
    _settings(command, "loss.name=my_loss")
    return parser


def _settings(command: argparse.ArgumentParser, example: str) -> None:
    command.add_argument("settings", nargs="*", metavar="key=value", help=f"for example: {example}")


def _workers(word: str) -> int | str:
    return word if word == "auto" else int(word)


def _search_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN_DIR")
    command.add_argument("--query", metavar="WORDS|PICTURE", help="what to look for")
    command.add_argument("--text", metavar="WORDS", help="the same, always words")
    command.add_argument("--image", metavar="FILE", help="the same, always a picture")
    command.add_argument("--images", metavar="DIR", help="pictures to search; codes are cached")
    command.add_argument("--texts", metavar="FILE", help="texts to search; codes are cached")
    command.add_argument(
        "--codes", metavar="FILE", help="codes to search, of encode; the run's database if left out"
    )
    command.add_argument("--top", type=int, default=10, metavar="N")
    command.add_argument("--html", metavar="FILE", help="a page with the pictures found")
    command.add_argument("--device", help="where to encode; a GPU where there is one if left out")


def _generate_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("dataset", metavar="DATASET", help="a name of `list datasets`, or a YAML")
    _settings(command, "dataset.root=DIR dataset.split.seed=1, as given to train")
    command.add_argument("--method", required=True, metavar="vtph|pzsh", help="whose needs")
    command.add_argument(
        "--out", required=True, metavar="DIR", help="folder to fill; goes on there"
    )
    command.add_argument(
        "--model",
        metavar="PATH|TAG",
        help="diffusers folder, .safetensors, .ckpt or hub tag; creatures for creatures_zeroshot",
    )
    command.add_argument("--model-config", metavar="DIR", help="diffusers folder, of a single file")
    command.add_argument("--captioner", metavar="PATH|TAG", help="BLIP folder or hub tag")
    command.add_argument("--prompt", help="template: <text>, or <label> <attributes> <caption>")
    command.add_argument("--negative-prompt", default="", metavar="TEXT")
    command.add_argument(
        "--count", action="append", default=[], metavar="N|seen=each|unseen=N|CLASS=N"
    )
    command.add_argument(
        "--features", action="store_true", help="encode the pictures too, with backbone=…"
    )
    command.add_argument("--condition", choices=("none", "image", "mosaic"), default="none")
    command.add_argument("--strength", type=float, default=0.8, help="of --condition image, 0..1")
    command.add_argument("--adapter", metavar="PATH|TAG", help="T2I-Adapter, of --condition mosaic")
    command.add_argument("--steps", type=int, default=50, help="denoising steps")
    command.add_argument("--guidance", type=float, default=7.5, help="scale of guidance")
    command.add_argument("--size", type=int, metavar="PX", help="side; the model's own if left out")
    command.add_argument("--seed", type=int, default=42, help="of the pictures")
    command.add_argument("--limit", type=int, metavar="N", help="first N rows; N per class")
    command.add_argument("--batch-size", type=int, metavar="N", help="halved when memory runs out")
    command.add_argument("--device", default="auto")
    command.add_argument(
        "--dtype", choices=("auto", "float32", "float16", "bfloat16"), default="auto"
    )
    command.add_argument("--dry-run", action="store_true", help="say what would be made, and stop")


def _metrics_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--query", metavar="CODES", help=CODES_HELP)
    command.add_argument("--database", metavar="CODES", help="the same")
    command.add_argument("--query-labels", metavar="FILE.npy", help="in place of those in --query")
    command.add_argument("--database-labels", metavar="FILE.npy", help="the same of --database")
    command.add_argument("--mat", metavar="FILE.mat", help="both sides: q_img q_txt r_img r_txt …")
    command.add_argument("--run", metavar="RUN_DIR", help="both sides: a run's codes.h5")
    command.add_argument("--directions", metavar="i2t,t2i", help="of --mat and --run")
    command.add_argument("--at", default="all", help="cut-offs of mAP, e.g. all,1000")
    command.add_argument("--precision-at", metavar="1,10", help="ranks of precision and recall")
    command.add_argument(
        "--no-relevant",
        choices=("zero", "skip"),
        default="zero",
        help="queries without a relevant row: count 0 in the mean, or leave out",
    )
    command.add_argument("--strict", action="store_true", help="refuse codes but ±1, 0 and 1")
    command.add_argument(
        "--gain",
        choices=("binary", "linear", "exponential"),
        default="binary",
        help="of NDCG: relevant or not, g shared labels, or 2^g - 1",
    )
    command.add_argument(
        "--similarity", metavar="FILE.npy", help="of classes, C×C: adds NDCG with it as the gain"
    )
    command.add_argument("--backend", choices=("auto", "torch", "numba"), default="auto")
    command.add_argument("--device", help="where to count, e.g. cuda; cpu when left out")
    command.add_argument("--memory-mb", type=float, default=256, help="bound while counting")
    command.add_argument("--json", metavar="FILE|-", help="write metrics as JSON (- = to stdout)")
    command.add_argument("--plot", metavar="FILE.png", help="precision-recall curves")


def list_command(options: argparse.Namespace) -> None:
    """Print the registered names, with a line on each."""
    from runners.commands.list import listing, print_listing

    tables = listing([options.kind] if options.kind else list(KINDS), options.plugin)
    if options.json:
        print(json.dumps(tables, indent=2))
    else:
        print_listing(tables)


def train_command(options: argparse.Namespace) -> None:
    """Train one run; the last line printed is its folder."""
    from common.config.run_config import compose

    config = compose(options.settings, options.config)
    if options.print_config:
        import yaml

        print(yaml.safe_dump(dict(config.resolved), sort_keys=False), end="")
        return
    from runners.base import run_config
    from runners.results.leaderboard import collect, summarize
    from runners.results.renderers import print_tables

    folder = run_config(config)
    if os.environ.get("RANK", "0") != "0":
        return  # under torchrun the first process reports; its files may not be complete yet
    print_tables(summarize(collect([folder])))
    print(folder.path)


def evaluate_command(options: argparse.Namespace) -> None:
    """Recompute the metrics of a run from its codes."""
    from runners.evaluation.reevaluate import reevaluate
    from runners.results.leaderboard import collect, summarize
    from runners.results.metric_table import print_cuts
    from runners.results.renderers import print_tables

    folder = reevaluate(options.run, options.settings)
    print_tables(summarize(collect([folder])))
    print_cuts(folder.metrics()["directions"])


def metrics_command(options: argparse.Namespace) -> None:
    """Measure codes in files."""
    from runners.results.metric_table import check_plot_path, plot_metrics, print_metrics
    from utils.files import write_json

    if options.plot:
        check_plot_path(Path(options.plot))
    result = _measured(options)
    if options.plot:
        plot_metrics(result, Path(options.plot))
    if options.json == "-":
        print(json.dumps(result, indent=2, allow_nan=False))
        return
    print_metrics(result)
    if options.json:
        write_json(Path(options.json), result)


def _similarity(path: str | None) -> Any:
    """Return the similarity of classes in an .npy file, if there is one."""
    from common.code_files import read_array

    what = "a similarity of classes is an npy of C×C numbers"
    return None if path is None else read_array(path, what)


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    """Return the metrics of the one or two files given."""
    from common.code_files import compare_files, compare_pair, open_mat, open_run

    settings = {
        "at": options.at.split(","),
        "precision_at": _ranks(options.precision_at),
        "no_relevant": options.no_relevant,
        "gain": options.gain,
        "similarity": _similarity(options.similarity),
        "backend": options.backend,
        "device": options.device,
        "memory_mb": options.memory_mb,
    }
    one = [path for path in (options.mat, options.run) if path]
    two = [options.query, options.database, options.query_labels, options.database_labels]
    if options.query and options.database and not one and not options.directions:
        return compare_files(
            options.query,
            options.database,
            query_labels=options.query_labels,
            database_labels=options.database_labels,
            strict=options.strict,
            **settings,
        )
    if len(one) != 1 or any(two):
        raise UserError(
            "metrics takes two files, --query and --database (with labels in them or by "
            "--query-labels and --database-labels), or one with both sides, --mat or --run, "
            "which alone has --directions."
        )
    pair = open_mat(options.mat, strict=options.strict) if options.mat else open_run(options.run)
    directions = options.directions and options.directions.split(",")
    return compare_pair(pair, directions, **settings)


def _ranks(text: str | None) -> list[int] | None:
    """Return the numbers in ``1,10``."""
    words = [] if text is None else [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and int(word) for word in words):
        raise UserError(f"--precision-at is '{text}'; ranks above 0 are accepted, such as 1,10.")
    return [int(word) for word in words] or None


def export_command(options: argparse.Namespace) -> None:
    """Write the codes of a file as an index of FAISS."""
    from common.code_files import open_codes
    from common.code_files.faiss_index import build_index, save_index

    source = open_codes(options.codes, labelled=False)
    save_index(build_index(source.packed_codes(), options.kind, source.bits), options.faiss)
    print(f"{source.rows} codes of {source.bits} bits, {options.kind} index: {options.faiss}")


def encode_command(options: argparse.Namespace) -> None:
    """Write the codes of a folder of pictures or of a file of texts."""
    from runners.search.search import encode_files

    found = encode_files(options.run, options.images, options.texts, options.out, options.device)
    print(f"{len(found)} codes of {found.bits} bits: {options.out}")


def search_command(options: argparse.Namespace) -> None:
    """Print the nearest rows of what is searched."""
    from runners.search.search import print_result, search_run, write_search_page

    found = search_run(
        options.run, query=options.query, text=options.text, image=options.image,
        images=options.images, texts=options.texts, codes=options.codes, top=options.top,
        device=options.device,
    )  # fmt: skip
    print_result(found)
    if options.html:
        write_search_page(found, Path(options.html))
        print(options.html)


def sweep_command(options: argparse.Namespace) -> int:
    """Run a sweep and print its leaderboard; exit code 1 when a run failed."""
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
    failed = [o for o in outcomes if o.state == "failed"]
    ended = [Path(o.config.output) / o.config.run_name for o in outcomes if o not in failed]
    _leaderboard(ended, Path(options.output or sweep.output))
    for reason in dict.fromkeys(outcome.reason for outcome in failed):
        names = [o.config.run_name for o in failed if o.reason == reason]
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        print(f"failed: {names[0]}{others}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def _leaderboard(runs: list[Path], output: Path) -> None:
    from common.storage.run_folder import RunFolder
    from runners.results.leaderboard import collect, rank_methods, summarize, write_csv
    from runners.results.plots import plot_curves, plot_ranks
    from runners.results.renderers import print_ranks, print_tables

    if not runs:
        return
    results = collect([RunFolder(path) for path in runs])
    rows = summarize(results)
    print_tables(rows)
    write_csv(rows, output / "leaderboard.csv")
    plots = plot_curves(results, output / "plots")
    ranks = rank_methods(rows)
    if ranks is not None:
        print_ranks(ranks)
        plots.append(plot_ranks(ranks, output / "plots"))
    print(f"{output / 'leaderboard.csv'}\n{len(plots)} plots in {output / 'plots'}")


def report_command(options: argparse.Namespace) -> None:
    """Print the leaderboard of finished runs."""
    from runners.report.files import read_published, write_report
    from runners.results.leaderboard import collect, find_runs, rank_methods, summarize, write_csv
    from runners.results.plots import plot_curves, plot_ranks
    from runners.results.renderers import print_ranks, print_tables

    published = read_published(options.published)
    results = collect(find_runs(options.runs))
    rows = summarize(results)
    ranks = rank_methods(rows)
    print_tables(rows)
    if ranks is not None:
        print_ranks(ranks)
    if options.csv:
        write_csv(rows, Path(options.csv))
    if options.plots:
        plot_curves(results, Path(options.plots))
        if ranks is not None:
            plot_ranks(ranks, Path(options.plots))
    for path in write_report(
        Path(options.runs), rows, html=options.html, markdown=options.markdown,
        latex=options.latex, published=published, queries=options.queries,
    ):  # fmt: skip
        print(path)


def prepare_command(options: argparse.Namespace) -> None:
    """Make a dataset ready; the last line printed is the path of its index."""
    from runners.commands.data import prepare_dataset

    for line in prepare_dataset(options.dataset, options.root, options.settings, options.download):
        print(line)


def verify_command(options: argparse.Namespace) -> int:
    """Print a table of findings; exit code 1 when something differs."""
    from runners.commands.data import print_findings, verify

    findings = verify(options.dataset, options.root, options.settings, options.quick)
    print_findings(findings, options.dataset)
    return 1 if any(finding.ok is False for finding in findings) else 0


def generate_command(options: argparse.Namespace) -> None:
    """Make captions and pictures; the last line printed is their folder."""
    from runners.generation.generate import generate
    from runners.generation.options import Options

    values = {name: value for name, value in vars(options).items() if name != "command"}
    values.update(
        out=Path(options.out), settings=tuple(options.settings), count=tuple(options.count)
    )
    for line in generate(Options(**values)):
        print(line)


def check_command(options: argparse.Namespace) -> int:
    """Check a method, or all that a plugin file registers."""
    from runners.commands.check import check

    return 0 if check(options.target, options.settings) else 1


if __name__ == "__main__":
    sys.exit(main())
