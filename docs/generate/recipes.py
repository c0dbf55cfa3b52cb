"""What the pages say of the papers' recipes, from the sweeps of ``configs/sweep/papers``."""

from __future__ import annotations

from typing import Any

from docs.generate.facts import Method
from docs.generate.markdown import table
from runners.recipes.describe import flat_recipe
from runners.recipes.papers import Deviation, PaperRun, deviations, paper_runs, paper_sweeps
from runners.report.published import in_words

COMMAND = "python main.py sweep"
SHOWN = {
    "encoder": "encoder", "encoder_trained": "trained of it", "encoder_batch_norm": "batch norms",
    "encoder_dropout": "its dropout", "train_image": "training pictures",
    "eval_image": "pictures that are searched and ask", "text_source": "texts",
    "text_filter": "tags left out", "text_when_none": "text of a picture without any",
    "caption_train": "caption in training", "caption_eval": "caption in evaluation",
    "rows.order": "order of rows", "rows.rule": "rule of the split",
    "rows.query": "queries", "rows.train": "training rows", "rows.database": "database",
    "labels.count": "labels", "batch_size": "batch", "drop_last": "last batch left out",
    "epochs": "epochs", "selection.rule": "epoch", "selection.on": "chosen on",
    "selection.directions": "one for each", "evaluation.cut": "cut of mAP",
    "evaluation.denominator": "divided by", "evaluation.empty_query": "query without relevant rows",
}  # fmt: skip
"""Key of a recipe → how a page calls it."""


def recipes_section(method: Method, level: int = 2) -> str:
    """Return the section of a method's page on the recipes of its papers; empty without one."""
    names = {config.name for config in method.configs}
    blocks: list[str] = []
    for sweep in paper_sweeps():
        runs = [run for run in paper_runs(sweep) if run.config.method in names]
        if runs:
            blocks += _of_sweep(sweep, runs, level + 1)
    if not blocks:
        return ""
    head = (
        "What the releases do, by one command. The tables are made from the sweeps; every key is "
        "held against the releases by `python -m pytest tests/papers`."
    )
    return "\n\n".join([f"{'#' * level} The papers' recipes", head, *blocks])


def _of_sweep(sweep: str, runs: list[PaperRun], level: int) -> list[str]:
    file = f"configs/sweep/{sweep}.yaml"
    first = runs[0].table
    blocks = [
        f"{'#' * level} {sweep}",
        f"[`{file}`](../../{file}): `{COMMAND} {sweep}`. Recipes: "
        + ", ".join(f"`{name}`" for name in dict.fromkeys(run.name for run in runs))
        + f"; bits {', '.join(map(str, sorted({run.config.bits for run in runs})))}.",
        table(["", ""], _rows(runs)),
    ]
    if first.unknown:
        keys = ", ".join(map(_plain, first.unknown))
        blocks.append(f"The release leaves open, and our choice is a guess: {keys}.")
    found = dict.fromkeys(d for run in runs for d in run.deviations)
    said = [f"- {_plain(d.key)} (`{d.recipe}`): {d.reason}" for d in found]
    blocks.append("Deviations from the release:\n\n" + "\n".join(said) if said else "No deviation.")
    return blocks


def _rows(runs: list[PaperRun]) -> list[tuple[str, str]]:
    """Return a line for each key that the recipes have; sets that differ are named."""
    rows = []
    for key, title in SHOWN.items():
        values: dict[str, list[str]] = {}
        for run in runs:
            value = flat_recipe(run.recipe).get(key)
            if value not in (None, "absent", False, "fixed", "none"):
                values.setdefault(in_words(value), []).append(run.name)
        if len(values) == 1 and len(next(iter(values.values()))) == len(runs):
            rows.append((title, next(iter(values))))
        elif values:
            rows.append((title, "; ".join(f"{v} ({_names(n)})" for v, n in values.items())))
    return rows


def _plain(key: str) -> str:
    """Return a recipe's key for a reader; it is none of our settings."""
    return f"*{key.replace('.', ', ').replace('_', ' ')}*"


def _names(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(name.partition(".")[2] for name in names))


def releases_table() -> str:
    """Return the table of docs/coming_from.md: a release, its command here, what differs."""
    rows = []
    for sweep in paper_sweeps():
        runs = paper_runs(sweep)
        entries = dict.fromkeys(d for run in runs for d in run.deviations)
        rows.append((f"`{COMMAND} {sweep}`", _head(sweep), _said(entries, runs)))
    return table(["command", "repeats", "what differs"], rows)


def _head(sweep: str) -> str:
    from common.config.layers import config_file

    first = config_file("sweep", sweep).read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("# ").rstrip(".")


def _said(entries: dict[Deviation, Any], runs: tuple[PaperRun, ...]) -> str:
    words = [f"{_plain(d.key)}: {d.reason}" for d in entries if d.recipe != "*"]
    if runs[0].table.unknown:
        words.append("open in the release: " + ", ".join(map(_plain, runs[0].table.unknown)))
    return "; ".join(words) or "nothing but what all share"


def shared_deviations() -> str:
    """Return what every recipe of ours does otherwise, as a list."""
    return "\n".join(f"- {_plain(d.key)}: {d.reason}" for d in deviations() if d.recipe == "*")
