"""Zero-shot measures of runs as columns of the leaderboard; the words are the report page's."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

NAMES = {
    "all_classes": "all classes", "unseen_only": "unseen only", "harmonic": "harmonic mean",
}  # fmt: skip
"""Measure → heading, all of mAP@all; see :mod:`runners.evaluation.zero_shot`."""

NOTE = (
    "all classes: queries of unseen classes, database of all; unseen only: database of unseen "
    "classes; harmonic mean: of unseen and seen queries, against one database of both"
)


def measures_of(report: Mapping[str, Any]) -> dict[str, float]:
    """Return measure → mAP@all of one direction of ``metrics["zero_shot"]``; those it has."""
    found = {
        name: report[name]["all"]["expected"]
        for name in ("all_classes", "unseen_only")
        if name in report
    }
    if "generalised" in report:
        found["harmonic"] = report["generalised"]["harmonic"]["all"]
    return found


def columns(runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return mean and sample deviation of the measures that all runs have, None for one run's.

    >>> columns([{"harmonic": 0.5}, {"harmonic": 0.25, "unseen_only": 1.0}])["harmonic"]
    0.375
    """
    found: dict[str, Any] = {}
    for name in NAMES:
        values = [run[name] for run in runs if name in run]
        if values and len(values) == len(runs):
            found[name] = statistics.fmean(values)
            found[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else None
    return found
