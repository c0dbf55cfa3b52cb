"""Zero-shot measures of a line, and AP of each unseen class."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np

from common.code_files.run_codes import read_codes
from common.directions import sides
from runners.report.study import Line, Study
from utils.errors import UserError

RUNS_WITH_CLASSES = 60
"""Of so many runs the codes are read again for AP by class; a page of 1,000 says so."""

_MEASURES = (
    ("all classes", ("all_classes",)),
    ("unseen only", ("unseen_only",)),
    ("generalised, unseen", ("generalised", "unseen")),
    ("generalised, seen", ("generalised", "seen")),
)


def zero_shot(study: Study) -> list[dict[str, Any]]:
    """Return for every line of a zero-shot run its measures and, of the first seed, its classes."""
    found: list[dict[str, Any]] = []
    for line in study.lines:
        metrics = [study.metrics[result.folder] for result in line.results]
        reports = [one["zero_shot"] for one in metrics if one.get("zero_shot")]
        own = [report["directions"].get(line.row.direction, {}) for report in reports]
        if not own or len(own) < len(metrics):
            continue
        classes = _classes(study, line, reports[0]) if len(found) < RUNS_WITH_CLASSES else []
        found.append({"measures": _measures(own), "classes": classes, "line": line})
    return found


def _measures(reports: list[dict[str, Any]]) -> dict[str, float]:
    """Return measure → mean over seeds, for the measures that every seed has."""
    values: dict[str, list[float]] = {}
    for report in reports:
        for name, path in _MEASURES:
            entry: Any = report
            for key in path:
                entry = entry.get(key, {})
            for cut, band in entry.items():
                if isinstance(band, dict) and "expected" in band:
                    values.setdefault(f"{name}, mAP@{cut}", []).append(band["expected"])
        for cut, value in report.get("generalised", {}).get("harmonic", {}).items():
            values.setdefault(f"harmonic mean, mAP@{cut}", []).append(value)
    return {
        name: statistics.fmean(numbers)
        for name, numbers in values.items()
        if len(numbers) == len(reports)
    }


def _classes(study: Study, line: Line, report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the unseen classes with mean AP of their queries over the whole database."""
    from common.metrics import average_precision, build_histograms

    run = line.results[0].folder
    try:
        query, database, _ = read_codes(run / "codes.h5")
    except UserError:
        return []
    names = class_names(study, run, query.labels.shape[1])
    unseen = np.setdiff1d(np.arange(query.labels.shape[1]), np.asarray(report["seen_classes"]))
    asks, answers = sides(line.row.direction)
    histograms = build_histograms(
        query.codes[asks], query.labels, database.codes[answers], database.labels
    )
    values = average_precision(histograms).expected.numpy()
    found = []
    for c in unseen:
        own = values[query.labels[:, c] > 0]
        if len(own):
            ap = round(float(own.mean()), 4)
            found.append({"name": names[c], "queries": len(own), "ap": ap})
    return sorted(found, key=lambda entry: -entry["ap"])


def class_names(study: Study, run: Path, count: int) -> list[str]:
    """Return the names of the classes, or their numbers where the dataset is not at hand."""
    dataset = study.datasets.open(run)
    if isinstance(dataset, str) or len(dataset.class_names) != count:
        return [f"class {c}" for c in range(count)]
    return list(dataset.class_names)
