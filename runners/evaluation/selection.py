"""The epochs that results are of: what they are chosen by, and what has one of its own.

``eval.epoch_per``: ``run`` takes one epoch for all results, the best by the mean over directions;
``direction`` takes for each direction its own best; ``cut`` for each cut of ``eval.at`` and each
measure of ``eval.measure`` its own, by the mean over directions. Chosen by: the first of
``eval.measure``, without it the exact mAP at the first cut of ``eval.at``; of ``cut`` each by
itself.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.code_files.run_codes import CodeSet
from common.config.run_config import EvalConfig
from common.metrics.average_precision import average_precision, average_precision_at, mean_band
from common.metrics.compat.measures import parse_measure
from common.metrics.histograms import Histograms
from common.metrics.report import parse_cuts
from runners.evaluation.measure import count_directions, measure_directions
from runners.training.history import Measurement
from utils.errors import UserError

RUN = "run"
"""The key of the epoch that ``codes.h5`` and ``checkpoints/best`` are of."""
EXACT = "mAP@"
Best = dict[str, list[Any]]
"""The run, and each direction, cut or measure with an epoch of its own → [epoch, value]."""
_ROWS = {"val": "held-out training rows", "query": "the test queries"}


@dataclasses.dataclass(frozen=True)
class Selection:
    """The state of the model that the results are of.

    Attributes:
        on: ``val``, ``query``, ``last`` or ``fit`` (no training).
        epoch: 1-based epoch of ``codes.h5``, or None where there are none.
        score: mean over directions of ``by`` on what was selected on, or None.
        by: what epochs were compared by, ``mAP@all`` or ``kalenforn@all``.
        per: ``eval.epoch_per``.
        epochs: direction, or cut (``mAP@100``) or measure → its own epoch; empty per run.
    """

    on: str
    epoch: int | None = None
    score: float | None = None
    by: str | None = None
    per: str = RUN
    epochs: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Selection:
        """Return what ``protocol.selected`` of ``metrics.json`` says, of any version."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})

    def as_json(self) -> dict[str, Any]:
        """Return the entry of ``metrics.json``, which also says it in words."""
        return {**dataclasses.asdict(self), "words": self.words}

    @property
    def words(self) -> str:
        """The choice in a sentence."""
        if self.on not in _ROWS:
            return "no epochs: fitted once" if self.on == "fit" else "the last epoch, not chosen"
        rows = _ROWS[self.on]
        if self.per == RUN:
            return f"the best epoch by the mean over directions of {self.by} on {rows}"
        own = ", ".join(f"{name} {epoch}" for name, epoch in self.epochs.items())
        run = f"epoch {self.epoch}, the best by the mean over directions of {self.by}"
        if self.per == "direction":
            each = f"each direction at its own best epoch by {self.by} on {rows}"
            return f"{each} ({own}); codes.h5 is of {run}"
        each = f"each cut at its own best epoch, by its mean over directions on {rows}"
        return f"{each} ({own}); codes.h5 and everything that is no cut are of {run}"


def chosen_on(selected: Mapping[str, Any]) -> str:
    """Return the rows of ``protocol.selected``, and what had an epoch of its own.

    >>> chosen_on({"on": "query"}), chosen_on({"on": "query", "per": "direction"})
    ('query', 'query, per direction')
    """
    per = selected.get("per", RUN)
    return selected["on"] + ("" if per == RUN else f", per {per}")


def criteria(evaluation: EvalConfig) -> list[str]:
    """Return what epochs are compared by, the run's own first."""
    exact = [f"{EXACT}{cut}" for cut in parse_cuts(evaluation.at)]
    names = [*(str(parse_measure(text)) for text in evaluation.measure or ()), *exact]
    return list(dict.fromkeys(names)) if evaluation.epoch_per == "cut" else names[:1]


def measure_epoch(
    query: CodeSet, database: CodeSet, directions: Sequence[str], evaluation: EvalConfig, *,
    device: torch.device | str | None = None,
) -> tuple[Measurement, dict[str, float]]:  # fmt: skip
    """Return the record of an epoch, and the values that :func:`contestants` gives."""
    names = criteria(evaluation)
    values = score_directions(
        query, database, directions, names, no_relevant=evaluation.no_relevant, device=device
    )
    scores = contestants(values, evaluation.epoch_per)
    by_direction = {direction: of[names[0]] for direction, of in values.items()}
    cuts = {name: scores[name] for name in names} if evaluation.epoch_per == "cut" else {}
    return Measurement(evaluation.select, scores[RUN], by_direction, names[0], cuts), scores


def improve(best: Best, epoch: int, scores: Mapping[str, float]) -> list[str]:
    """Enter the values of an epoch where they are above those so far; return their names."""
    better = [n for n, score in scores.items() if n not in best or score > best[n][1]]
    best.update({name: [epoch, scores[name]] for name in better})
    return better


def own_epochs(best: Best) -> dict[str, int]:
    """Return direction, cut or measure → its best epoch so far."""
    return {name: epoch for name, (epoch, _) in best.items() if name != RUN}


def selection_of(evaluation: EvalConfig, best: Best) -> Selection:
    """Return the choice after the last epoch."""
    epoch, score = best[RUN]
    by = criteria(evaluation)[0]
    return Selection(evaluation.select, epoch, score, by, evaluation.epoch_per, own_epochs(best))


def score_directions(
    query: CodeSet, database: CodeSet, directions: Sequence[str], names: Sequence[str], *,
    no_relevant: str, device: torch.device | str | None = None,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Return direction → name of :func:`criteria` → value."""
    exact = [name for name in names if name.startswith(EXACT)]
    measures = [name for name in names if name not in exact]
    counted = count_directions(query, database, directions, device=device) if exact else {}
    repeated = measure_directions(query, database, directions, measures)
    values: dict[str, dict[str, float]] = {}
    for direction in directions:
        of = {name: _exact(counted[direction], name, no_relevant) for name in exact}
        for name in measures:
            value = repeated[direction][name]
            of[name] = float("nan") if value is None else value
        values[direction] = {name: of[name] for name in names}
    return values


def _exact(counted: Histograms, name: str, no_relevant: str) -> float:
    """Return the expected mAP at the cut of ``mAP@cut``, as a report has it."""
    if no_relevant == "skip":
        counted = counted.select(counted.total_relevant > 0)
    cut = parse_cuts([name.removeprefix(EXACT)]).popitem()[1]
    band = average_precision(counted) if cut is None else average_precision_at(counted, cut, "min")
    return mean_band(band)["expected"]


def contestants(values: Mapping[str, Mapping[str, float]], per: str) -> dict[str, float]:
    """Return :data:`RUN`, and whatever else has a best epoch of its own → value of this epoch."""
    names = list(next(iter(values.values())))
    means = {name: statistics.fmean(of[name] for of in values.values()) for name in names}
    own: dict[str, float] = {}
    if per == "direction":
        own = {direction: of[names[0]] for direction, of in values.items()}
    elif per == "cut":
        own = means
    return {RUN: means[names[0]], **own}


def check_answered(
    evaluation: EvalConfig, query_labels: Tensor | np.ndarray, database_labels: Tensor | np.ndarray
) -> None:
    """Refuse to choose epochs by a measure that is NaN whatever the codes are.

    Raises:
        UserError: queries share no label with any row, and a measure makes of them a NaN.
    """
    nan = [
        name
        for name in criteria(evaluation)
        if not name.startswith(EXACT) and parse_measure(name).rule.unanswered == "nan"
    ]
    query, database = np.asarray(query_labels) > 0, np.asarray(database_labels) > 0
    unanswered = int((~query[:, database.any(0)].any(1)).sum())
    if nan and unanswered:
        cut = nan[0].partition("@")[2]
        raise UserError(
            f"eval.measure={nan[0]} cannot choose epochs here: it is NaN where a query has no "
            f"relevant row, as {unanswered} of {len(query)} have; give mith@{cut}, which counts "
            "them 0, first in eval.measure, or eval.select=last."
        )


def epochs_of(selected: Selection, directions: Iterable[str]) -> dict[int | None, list[str]]:
    """Return epoch → the directions whose results are of it."""
    own = selected.epochs if selected.per == "direction" else {}
    groups: dict[int | None, list[str]] = {}
    for direction in directions:
        groups.setdefault(own.get(direction, selected.epoch), []).append(direction)
    return groups
