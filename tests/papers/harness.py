"""From a run of a paper's sweep to the neutral keys of recipes, and what does not agree.

An adapter that states a key says what the *run* does; no value is taken from the entry. A key of an
entry that no adapter states fails, as does a deviation that is declared and not there.
"""

from __future__ import annotations

import fnmatch
from typing import Any

from common.config import schema
from runners.recipes.describe import describe
from runners.recipes.papers import Deviation, PaperRun, deviations, paper_runs, paper_sweeps
from tests.papers.general import describe_general
from tests.papers.methods import method_values

ATTRIBUTES = {"awa2": 85, "cub": 312, "sun": 102}
SAME = {
    "float32 in training, float32 in evaluation": "float32",
    "pixels of the CIFAR files": "RGB by PIL, no EXIF rotation",  # RGB, without EXIF
}
"""Words of recipes that say the same as others."""
OPTIONAL = ("memory", "ema_update", "head_batch_norm")
"""Keys that entries leave out where there is no such thing."""
ABSENT = (None, "absent")
METHOD_PART = ("method", "model", "loss", "optim", "runner")
"""Keys of :func:`describe` that are settings; ``method_values`` says them in neutral words."""


def runs_of(name: str) -> dict[int, PaperRun]:
    """Return bits → run, of the recipe ``name`` (``dcmht.flickr25k``), whatever its sweep."""
    runs = [run for sweep in paper_sweeps() for run in paper_runs(sweep) if run.name == name]
    return {run.config.bits: run for run in runs}


def neutral(run: PaperRun) -> dict[str, Any]:
    """Return the neutral keys of a run, dotted."""
    if run.config.hash not in _NEUTRAL:
        recipe = describe(run.config)
        general = {key: value for key, value in recipe.items() if key not in METHOD_PART}
        merged = schema.flat(general) | schema.flat(describe_general(run.config))
        classes = merged["labels.count"]
        attributes = ATTRIBUTES.get(run.config.dataset_name, 0)
        _NEUTRAL[run.config.hash] = flat(merged | method_values(run.config, classes, attributes))
    return _NEUTRAL[run.config.hash]


_NEUTRAL: dict[str, dict[str, Any]] = {}


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return dotted paths → values; lists of mappings by number, others are compared whole."""
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        return {path: value}
    parts = [flat(inner, f"{path}.{key}" if path else str(key)) for key, inner in value.items()]
    return {key: inner for part in parts for key, inner in part.items()}


def disagreements(entry: dict[str, Any]) -> list[str]:
    """Return what a recipe says otherwise than the runs that repeat it, one line each."""
    runs = runs_of(entry["id"])
    missing = sorted(set(entry["bits"]) - set(runs))
    if missing:
        return [f"no run of configs/sweep/papers has recipe {entry['id']} at {missing} bits"]
    lines = []
    for bits in entry["bits"]:
        lines += [f"{line} ({bits} bits)" for line in run_disagreements(entry, runs[bits])]
    return list(dict.fromkeys(lines))


def declared(entry: dict[str, Any]) -> list[Deviation]:
    """Return the deviations that are declared for an entry."""
    return [d for d in deviations() if fnmatch.fnmatchcase(entry["id"], d.recipe)]


def run_disagreements(entry: dict[str, Any], run: PaperRun) -> list[str]:
    """Return what a recipe says otherwise than a run, one line each."""
    theirs = flat(entry["recipe"])
    ours = neutral(run)
    allowed = declared(entry)
    lines: list[str] = []
    used: set[Deviation] = set()
    for key, value in theirs.items():
        if _of_other_bits(key, run.config.bits):
            continue
        if value is None and _below(key, run.table.unknown):
            continue
        if key not in ours and value is not None:
            if not (covering := [d for d in allowed if _below(key, [d.key])]):
                lines.append(f"{key} is not compared; the recipe says {value!r}")
            used.update(covering)
            continue
        if _plain(ours.get(key)) == _plain(value):
            continue
        covering = [d for d in allowed if _below(key, [d.key])]
        used.update(covering)
        if not covering:
            lines.append(f"{key}: ours {ours.get(key)!r}, the recipe {value!r}")
    for key in OPTIONAL:
        if not any(_below(name, [key]) for name in theirs) and ours.get(key) not in ABSENT:
            lines.append(f"{key}: ours {ours[key]!r}, the recipe has none")
    for deviation in set(allowed) - used:
        if deviation.recipe == entry["id"] or "*" not in deviation.recipe:
            lines.append(f"{deviation.key} is declared to deviate and agrees")
    return lines


def _below(key: str, names: Any) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _of_other_bits(key: str, bits: int) -> bool:
    """Tell whether a key ends in another number of bits, as ``loss.theta.16`` does."""
    last = key.rpartition(".")[2]
    return last.isdigit() and int(last) != bits


def _plain(value: Any) -> Any:
    """Return a value in which tuples are lists and whole floats are integers."""
    if isinstance(value, str):
        return SAME.get(value, value)
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
