"""Selection and measure of a run in the neutral keys of recipes.

What is said here follows from ``eval.*`` and the procedure alone. Where the settings do what no
release does, the words are our own: ``min(relevant, k), ranking cut``, ``left out of the mean``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from common.config.run_config import EvalConfig, RunConfig
from common.directions import usual_directions
from common.metrics.compat.measures import Measure, parse_measure
from common.metrics.report import parse_cuts

T = TypeVar("T")
_EMPTY = {
    "zero": "0, counted", "nan": "NaN for the whole mean", "skip": "left out of the mean",
}  # fmt: skip
_ON = {"query": "queries", "val": "held-out training rows"}


def describe_measure(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Return ``selection`` and ``evaluation`` of a resolved run in the neutral keys.

    ``selection``: ``rule``, ``on``, ``every_epochs``, ``directions``; ``evaluation``:
    ``directions``, ``cut``, ``denominator``, ``empty_query``, ``relevance``, ``ties``. A list where
    the measures differ in it, else one value. The evaluation is that of ``eval.measure`` where the
    run has it, else that of the exact mAP at ``eval.at``.
    """
    directions = _directions(config)
    return {
        "selection": _selection(config, directions),
        "evaluation": _evaluation(config.eval, directions),
    }


def _directions(config: RunConfig) -> list[str]:
    """Return the directions of the run; None of ``eval.directions``: by the model's codes."""
    if config.eval.directions is not None:
        return list(config.eval.directions)
    provided = config.model.entry.provides
    modalities = [m for m in ("image", "text") if f"{m}_code" in provided]
    return usual_directions(modalities, modalities)


def _selection(config: RunConfig, directions: Sequence[str]) -> dict[str, Any]:
    evaluation = config.eval
    if config.runner.name == "fit" or evaluation.select == "last":
        return {"rule": "last", "on": None, "every_epochs": None, "directions": None}
    return {
        "rule": "best",
        "on": _ON[evaluation.select],
        "every_epochs": evaluation.every,
        "directions": _epochs(config, directions),
    }


def _epochs(config: RunConfig, directions: Sequence[str]) -> str | None:
    """Return what has an epoch of its own; None: there is one direction and one epoch."""
    evaluation = config.eval
    if evaluation.epoch_per == "cut":
        measures = [str(parse_measure(text)) for text in evaluation.measure or ()]
        cuts = [text.partition("@")[2] for text in measures] or list(parse_cuts(evaluation.at))
        return f"separate epochs per cut ({', '.join(cuts)})"
    if evaluation.epoch_per == "direction" and len(directions) > 1:
        lengths = " and per code length" if config.runner.name == "twdh" else ""
        return f"separate epochs per direction{lengths}"
    if len(directions) < 2:
        return None
    return f"one epoch by the sum of {'both' if len(directions) == 2 else 'all'} directions"


def _evaluation(evaluation: EvalConfig, directions: Sequence[str]) -> dict[str, Any]:
    measures = [parse_measure(text) for text in evaluation.measure or ()]
    if measures:
        cuts: list[Any] = [_cut(measure.at) for measure in measures]
        denominators = [_denominator(measure) for measure in measures]
        empty = [_EMPTY[measure.rule.unanswered] for measure in measures]
        ties = "by row number"
    else:
        numbers = parse_cuts(evaluation.at).values()
        cuts = list(numbers)
        denominators = ["all" if n is None else "min(relevant, k), ranking cut" for n in numbers]
        empty = [_EMPTY[evaluation.no_relevant]]
        ties = "the mean over all orders"
    return {
        "directions": list(directions),
        "cut": cuts[0] if len(cuts) == 1 else cuts,
        "denominator": _one(denominators),
        "empty_query": _one(empty),
        "relevance": "at least one shared label",
        "ties": ties,
    }


def _cut(at: int | None) -> int | str | None:
    return "all but the last row" if at == -1 else at


def _denominator(measure: Measure) -> str:
    if measure.rule.cut != "relevant":
        return "retrieved"
    return "all" if measure.at is None else "first_k_relevant"


def _one(values: list[T]) -> T | list[T]:
    """Return the value that all are, or the list."""
    return values[0] if all(value == values[0] for value in values) else values
