"""Zero-shot measures of a row, and AP of each unseen class."""

from __future__ import annotations

from typing import Any

import numpy as np

from common.code_files.run_codes import read_codes
from common.directions import sides
from runners.evaluation.run_report import codes_file
from runners.report.study import Study
from runners.results.leaderboard import Row, mean_and_std
from utils.errors import UserError

RUNS_WITH_CLASSES = 60
"""Of so many runs the codes are read again for AP by class; a page of 1,000 says so."""


def zero_shot(study: Study) -> list[dict[str, Any]]:
    """Return for every row of zero-shot runs its measures and, of the first seed, its classes.

    ``line`` is the row's number on the page.
    """
    entries: list[dict[str, Any]] = []
    for number, row in enumerate(study.rows):
        runs = [result.zero_shot for result in row.results]
        if not all(runs):
            continue
        means = {name: mean_and_std(run.get(name) for run in runs)[0] for name in runs[0]}
        measures = {name: mean for name, mean in means.items() if mean is not None}
        classes = _classes(study, row) if len(entries) < RUNS_WITH_CLASSES else []
        entries.append({"measures": measures, "classes": classes, "line": number})
    return entries


def _classes(study: Study, row: Row) -> list[dict[str, Any]]:
    """Return the unseen classes with mean AP of their queries over the whole database."""
    from common.metrics import average_precision, build_histograms

    result = row.results[0]
    try:
        query, database, _ = read_codes(codes_file(result.folder, result.metrics, row.direction))
    except UserError:
        return []
    count = query.labels.shape[1]
    dataset = study.datasets.open(result)
    names = () if isinstance(dataset, str) else dataset.class_names
    if len(names) != count:
        names = tuple(f"class {c}" for c in range(count))
    unseen = np.setdiff1d(np.arange(count), result.metrics["zero_shot"]["seen_classes"])
    query_modality, database_modality = sides(row.direction)
    histograms = build_histograms(
        query.codes[query_modality], query.labels,
        database.codes[database_modality], database.labels,
    )  # fmt: skip
    ap = average_precision(histograms).expected.numpy()  # [Q]
    classes = []
    for c in unseen:
        of_class = ap[query.labels[:, c] > 0]
        if len(of_class):
            mean = round(float(of_class.mean()), 4)
            classes.append({"name": names[c], "queries": len(of_class), "ap": mean})
    return sorted(classes, key=lambda entry: -entry["ap"])
