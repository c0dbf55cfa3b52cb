"""The results of a run from its codes, each at the epoch that it is of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.code_files.run_codes import CodeSet
from common.config.run_config import EvalConfig
from common.metrics.compat.measures import parse_measure
from common.storage.run_folder import RunFolder
from runners.evaluation.measure import count_directions, measure_directions, report_counted
from runners.evaluation.query_ap import query_ap
from runners.evaluation.selection import EXACT, Selection, epochs_of
from runners.evaluation.zero_shot import zero_shot_report

CodesOf = Callable[[int | None], tuple[CodeSet, CodeSet]]
"""Epoch → codes of query and database."""


@dataclasses.dataclass(frozen=True)
class RunReport:
    """What ``metrics.json`` and ``query_ap.npz`` hold of a run.

    Attributes:
        directions: direction → report. ``epoch`` is that of all its numbers but those that
            ``epochs`` names: cut (``mAP@100``) or measure → an epoch of its own.
        per_query: direction → AP float32 [Q].
        zero_shot: of :func:`runners.evaluation.zero_shot.zero_shot_report`, or None.
    """

    directions: dict[str, Any]
    per_query: dict[str, np.ndarray]
    zero_shot: dict[str, Any] | None


def report_run(
    codes_of: CodesOf, selected: Selection, directions: Sequence[str], evaluation: EvalConfig, *,
    seen_classes: Sequence[int] | None, trained_rows: np.ndarray,
    device: torch.device | str | None = None,
) -> RunReport:  # fmt: skip
    """Return the results of a run; ``seen_classes`` None: nothing is zero-shot."""
    reports: dict[str, Any] = {}
    per_query: dict[str, np.ndarray] = {}
    zero_shot: dict[str, Any] | None = None
    for epoch, group in epochs_of(selected, directions).items():
        query, database = codes_of(epoch)
        found, values = _report(query, database, group, evaluation, device)
        reports |= {d: report | {"epoch": epoch} for d, report in found.items()}
        per_query |= values
        if seen_classes is None:
            continue
        part = zero_shot_report(
            query, database, group, seen_classes=seen_classes, trained_rows=trained_rows,
            at=evaluation.at, no_relevant=evaluation.no_relevant, device=device,
        )  # fmt: skip
        if part and zero_shot:
            zero_shot["directions"] |= part["directions"]
        zero_shot = zero_shot or part
    if selected.per == "cut":
        _replace_cuts(codes_of, selected, reports, per_query, evaluation, device)
    ordered = {direction: reports[direction] for direction in directions}
    return RunReport(ordered, {d: per_query[d] for d in directions}, zero_shot)


def codes_file(folder: Path, metrics: Mapping[str, Any], direction: str) -> Path:
    """Return the codes in a run folder that the report of a direction is of."""
    run, epoch = RunFolder(folder), metrics["directions"][direction].get("epoch")
    if epoch in (None, metrics["protocol"]["selected"].get("epoch")):
        return run.codes_file
    return run.codes_of_epoch(epoch)


def measure_words(evaluation: EvalConfig) -> dict[str, str]:
    """Return measure → what it computes, in words."""
    measures = [parse_measure(text) for text in evaluation.measure or ()]
    return {str(m): f"{m.rule.computes}; ties by row number" for m in measures}


def _report(
    query: CodeSet, database: CodeSet, directions: Sequence[str], evaluation: EvalConfig,
    device: torch.device | str | None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:  # fmt: skip
    """Return direction → report, and direction → AP of every query."""
    no_relevant = evaluation.no_relevant
    counted = count_directions(query, database, directions, device=device)
    reports = report_counted(counted, at=evaluation.at, no_relevant=no_relevant)
    if evaluation.measure:
        compat = measure_directions(query, database, directions, evaluation.measure)
        reports = {d: report | {"compat": compat[d]} for d, report in reports.items()}
    return reports, query_ap(counted, no_relevant=no_relevant)


def _replace_cuts(
    codes_of: CodesOf, selected: Selection, reports: dict[str, Any],
    per_query: dict[str, np.ndarray], evaluation: EvalConfig, device: torch.device | str | None,
) -> None:  # fmt: skip
    """Put every cut and measure with an epoch of its own in the place of the run's."""
    own = {name: epoch for name, epoch in selected.epochs.items() if epoch != selected.epoch}
    for epoch in sorted(set(own.values())):
        query, database = codes_of(epoch)
        found, values = _report(query, database, list(reports), evaluation, device)
        for name in (name for name, of in own.items() if of == epoch):
            section, key = "compat", name
            if name.startswith(EXACT):
                section, key = "map", name.removeprefix(EXACT)
            for direction, report in reports.items():
                if key in report.get(section, {}):
                    report[section][key] = found[direction][section][key]
                    report.setdefault("epochs", {})[name] = epoch
            if name == f"{EXACT}all":
                per_query |= values
