"""What a smoke came to: a table of its runs, the reasons of failures, and one sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from common.config.run_config import RunConfig
from runners.results.renderers import print_table
from runners.results.tables import Cell, Table
from runners.results.variants import name_variants
from runners.sweeps.smoke import Trial
from utils.progress import duration
from utils.terminal import say

CANNOT = (
    "A smoke cannot tell accuracy, nor whether a whole batch fits into memory, nor what the rows "
    "that were not read hold."
)


def print_trials(trials: Sequence[Trial]) -> None:
    """Print the table, and a line for each reason of a failure."""
    table = smoke_table(trials)
    print_table(table)
    of_reason: dict[str, list[str]] = {}
    for trial in trials:
        if trial.reason:
            name = f"{trial.config.method} {trial.config.dataset_name} {trial.config.bits} bits"
            of_reason.setdefault(trial.reason, []).append(name)
    for reason, names in of_reason.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        say(f"failed: {names[0]}{others}: {reason}")


def smoke_table(trials: Sequence[Trial]) -> Table:
    """Return a row for each trial."""
    head = ["method", "dataset", "bits", "encoder", "rows", "s", "peak MB", "result"]
    settings = differing_settings([trial.config for trial in trials])
    if any(settings):
        head.insert(3, "settings")
    rows = []
    for trial, words in zip(trials, settings, strict=True):
        config = trial.config
        cells = [
            config.method, config.dataset_name, str(config.bits), trial.encoder, trial.rows,
            f"{trial.seconds:.1f}", "–" if trial.peak_mb is None else f"{trial.peak_mb:,.0f}",
            "failed" if trial.reason else "passed",
        ]  # fmt: skip
        if any(settings):
            cells.insert(3, words)
        rows.append(tuple(map(Cell, cells)))
    notes = (
        "rows: real; fewer where the split asks for more than there are; drawn where the dataset "
        "is not prepared; peak: of this process",
    )
    return Table("smoke: two steps on a few rows", tuple(head), tuple(rows), notes)


def sentence(trials: Sequence[Trial], left_out: int) -> str:
    """Return how many passed, what was left out, and what a smoke cannot tell."""
    failed = [trial for trial in trials if trial.reason]
    kinds = Counter("to mend" if trial.by_user else "of the program" for trial in failed)
    parts = [f"{len(trials) - len(failed)} of {len(trials)} runs passed"]
    if failed:
        parts.append("failures: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items()))
    if left_out:
        parts.append(f"{left_out} that differ in their seed only were left out (--every-seed)")
    seconds = sum(trial.seconds for trial in trials)
    return f"{'; '.join(parts)}; {duration(seconds)}. {CANNOT}"


def exit_code(trials: Sequence[Trial]) -> int:
    """Return 0: all passed, 1: a run failed by a fault of the program, 2: for the user to mend."""
    failed = [trial for trial in trials if trial.reason]
    if not failed:
        return 0
    return 2 if all(trial.by_user for trial in failed) else 1


def differing_settings(configs: Sequence[RunConfig]) -> list[str]:
    """Return for each run the settings that tell it from others of its method and dataset."""
    variants = name_variants([config.resolved for config in configs])
    return [variant.label for variant in variants]
