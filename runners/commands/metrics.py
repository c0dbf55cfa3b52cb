"""``main.py metrics``: measure codes in files."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runners.commands.arguments import CODES_HELP
from utils.errors import UserError, unknown_name
from utils.terminal import say

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from common.code_files import CodeSource


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``metrics``."""
    parser.add_argument("--query", metavar="CODES", help=CODES_HELP)
    parser.add_argument("--database", metavar="CODES", help="the same")
    parser.add_argument("--query-labels", metavar="FILE.npy", help="in place of those in --query")
    parser.add_argument("--database-labels", metavar="FILE.npy", help="the same of --database")
    parser.add_argument("--mat", metavar="FILE.mat", help="both sides: q_img q_txt r_img r_txt …")
    parser.add_argument("--run", metavar="RUN_DIR", help="both sides: a run's codes.h5")
    parser.add_argument("--directions", metavar="i2t,t2i", help="of --mat and --run")
    parser.add_argument("--at", default="all", help="cut-offs of mAP, e.g. all,1000")
    parser.add_argument("--precision-at", metavar="1,10", help="ranks of precision and recall")
    parser.add_argument(
        "--no-relevant",
        choices=("zero", "skip"),
        default="zero",
        help="queries without a relevant row: count 0 in the mean, or leave out",
    )
    parser.add_argument("--strict", action="store_true", help="refuse codes but ±1, 0 and 1")
    parser.add_argument(
        "--gain",
        choices=("binary", "linear", "exponential"),
        default="binary",
        help="of NDCG: relevant or not, g shared labels, or 2^g - 1",
    )
    parser.add_argument(
        "--similarity", metavar="FILE.npy", help="of classes, C×C: adds NDCG with it as the gain"
    )
    parser.add_argument(
        "--compat",
        action="append",
        default=[],
        metavar="NAME",
        help="adds mAP as a released codebase computes it: kalenforn, dchmt, mith, deephash, fire",
    )
    parser.add_argument("--backend", choices=("auto", "torch", "numba"), default="auto")
    parser.add_argument("--device", help="where to count, e.g. cuda; cpu when left out")
    parser.add_argument("--memory-mb", type=float, default=256, help="bound while counting")
    parser.add_argument("--json", metavar="FILE|-", help="write metrics as JSON (- = to stdout)")
    parser.add_argument("--plot", metavar="FILE.png", help="precision-recall curves")


def run(options: argparse.Namespace) -> None:
    """Measure, and print or write the metrics."""
    from runners.results.metric_table import check_plot_path, plot_metrics, print_metrics
    from utils.files import write_json

    if options.plot:
        check_plot_path(Path(options.plot))
    result = _measure(options)
    if options.plot:
        plot_metrics(result, Path(options.plot))
    if options.json == "-":
        say(*json.dumps(result, indent=2, allow_nan=False).split("\n"))
        return
    print_metrics(result)
    if options.json:
        write_json(Path(options.json), result)


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the metrics of the one or two files given."""
    from common import code_files
    from common.directions import sides
    from common.metrics.compat.policies import POLICIES

    for name in options.compat:
        if name not in POLICIES:
            raise unknown_name("policy of --compat", name, POLICIES)
    names = ("no_relevant", "gain", "backend", "device", "memory_mb")
    settings = {name: getattr(options, name) for name in names}
    settings |= {"at": options.at.split(","), "precision_at": _ranks(options.precision_at)}
    if options.similarity is not None:
        what = "a similarity of classes is an npy of C×C numbers"
        settings["similarity"] = code_files.read_array(options.similarity, what)
    one = [path for path in (options.mat, options.run) if path]
    two = [options.query, options.database, options.query_labels, options.database_labels]
    if options.query and options.database and not one and not options.directions:
        result = code_files.compare_files(
            options.query,
            options.database,
            query_labels=options.query_labels,
            database_labels=options.database_labels,
            strict=options.strict,
            **settings,
        )
        if options.compat:
            query, database = (
                code_files.open_codes(codes, labels, memory_mb=options.memory_mb)
                for codes, labels in (
                    (options.query, options.query_labels),
                    (options.database, options.database_labels),
                )
            )
            result["directions"]["q2d"]["compat"] = compat_means(
                query, database, options.compat, settings["at"], options.memory_mb
            )
        return result
    if len(one) != 1 or any(two):
        raise UserError(
            "metrics takes two files, --query and --database (with labels in them or by "
            "--query-labels and --database-labels), or one with both sides, --mat or --run, "
            "which alone has --directions."
        )
    if options.mat:
        pair = code_files.open_mat(options.mat, strict=options.strict)
    else:
        pair = code_files.open_run(options.run, memory_mb=options.memory_mb)
    directions = options.directions and options.directions.split(",")
    result = code_files.compare_pair(pair, directions, **settings)
    for direction, report in result["directions"].items() if options.compat else ():
        query_modality, database_modality = sides(direction)
        query, database = pair.query[query_modality], pair.database[database_modality]
        report["compat"] = compat_means(
            query, database, options.compat, settings["at"], options.memory_mb
        )
    return result


def _ranks(text: str | None) -> list[int] | None:
    """Return the numbers in ``1,10``."""
    words = [] if text is None else [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and int(word) for word in words):
        raise UserError(f"--precision-at is '{text}'; ranks above 0 are accepted, such as 1,10.")
    return [int(word) for word in words] or None


def compat_means(
    query: CodeSource,
    database: CodeSource,
    policies: Sequence[str],
    at: Sequence[str | int],
    memory_mb: float,
) -> dict[str, dict[str, Any]]:
    """Return mAP as released codebases compute it, see :mod:`common.metrics.compat.policies`.

    Codes are taken as stored: zeros and real values are not made ±1 first.

    Returns:
        Policy → ``computes``, what it is in words, and ``map``, cut → mAP; None where it is NaN.

    Raises:
        UserError: codes and labels that take more than ``memory_mb``.
    """
    from common.metrics.compat.policies import POLICIES
    from common.metrics.report import parse_cuts

    label = 4 * database.label_shape[0] if database.label_shape else 8  # bytes
    codes_and_labels = (query.rows + database.rows) * (8 * query.bits + label)  # in float64
    held_mb = (codes_and_labels + 64 * database.rows) / 2**20  # with the ranking of one query
    if held_mb > memory_mb:
        raise UserError(
            f"--compat ranks all pairs of '{query.name}' and '{database.name}' with codes and "
            f"labels in memory, about {math.ceil(held_mb)} MiB, and --memory-mb is {memory_mb:g}; "
            "give more, or leave --compat out."
        )
    means = _means(query, database, policies, parse_cuts(at), memory_mb - held_mb)
    return {
        name: {
            "computes": POLICIES[name].computes,
            "map": {text: None if math.isnan(mean) else mean for text, mean in by_cut.items()},
        }
        for name, by_cut in means.items()
    }


def _means(
    query: CodeSource,
    database: CodeSource,
    policies: Sequence[str],
    cuts: dict[str, int | None],
    memory_mb: float,
) -> dict[str, dict[str, float]]:
    """Return policy → cut → mAP."""
    from common.metrics.compat.measures import Measure, policy_means
    from common.metrics.compat.policies import compat_map

    if {query.form, database.form} <= {"packed", "0/1", "±1"}:
        measures = [Measure(name, cut) for name in policies for cut in cuts.values()]
        found = policy_means(query.read(), database.read(), measures, memory_mb=memory_mb)
        return {
            name: {text: found[Measure(name, cut)] for text, cut in cuts.items()}
            for name in policies
        }
    inputs = (_stored_codes(query), query.labels, _stored_codes(database), database.labels)
    return {
        name: {
            text: compat_map(name, *inputs, at=cut, memory_mb=memory_mb)
            for text, cut in cuts.items()
        }
        for name in policies
    }


def _stored_codes(source: CodeSource) -> NDArray[Any]:
    """Return codes [N,K] of ±1 where bits are stored, else the numbers that are stored."""
    import numpy as np

    if source.form in ("packed", "0/1"):
        return source.codes()
    with source.opened() as stored:
        return np.asarray(stored.values[:], dtype=np.float64)
