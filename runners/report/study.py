"""What a report says, gathered from finished runs: rows over seeds, and the runs behind each."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.storage.run_folder import RunFolder
from runners.report.dataset_reader import DatasetReader
from runners.report.training import Curve, training_curves
from runners.results.leaderboard import Result, Row

Place = tuple[str, str]
"""Dataset and direction."""


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of the leaderboard with its results, in the order of their seeds."""

    row: Row
    results: tuple[Result, ...]
    backbone_shown: bool = False

    @property
    def name(self) -> str:
        """Method, variant, and the encoder where a dataset has been run with several."""
        backbone = f"[{self.row.backbone}]" if self.backbone_shown else ""
        return " ".join(part for part in (self.row.method, self.row.variant, backbone) if part)

    def mean(self, *keys: str) -> float | None:
        """Return the mean over seeds of a number in the report, or None where a seed lacks it."""
        values = [_at(result.report, keys) for result in self.results]
        return None if None in values else statistics.fmean(v for v in values if v is not None)

    def deviation(self, *keys: str) -> float | None:
        """Return the sample deviation over seeds of a number in the report."""
        values = [_at(result.report, keys) for result in self.results]
        found = [value for value in values if value is not None]
        return statistics.stdev(found) if 1 < len(found) == len(values) else None


def _at(report: Any, keys: Sequence[str]) -> float | None:
    for key in keys:
        if not isinstance(report, dict) or key not in report:
            return None
        report = report[key]
    return float(report) if isinstance(report, int | float) else None


@dataclasses.dataclass(frozen=True)
class Study:
    """All that a report is made from.

    Attributes:
        root: the folder that was looked through.
        lines: in the order of the leaderboard.
        datasets: opens the datasets of runs, for pictures, captions and names.
    """

    root: Path
    lines: tuple[Line, ...]
    datasets: DatasetReader = dataclasses.field(default_factory=DatasetReader)

    @property
    def places(self) -> dict[Place, list[Line]]:
        """Dataset and direction → its lines."""
        found: dict[Place, list[Line]] = {}
        for line in self.lines:
            found.setdefault((line.row.dataset, line.row.direction), []).append(line)
        return found

    @functools.cached_property
    def folders(self) -> dict[Path, RunFolder]:
        """Every run once, by its path."""
        paths = dict.fromkeys(result.folder for line in self.lines for result in line.results)
        return {path: RunFolder(path) for path in paths}

    @functools.cached_property
    def metrics(self) -> dict[Path, dict[str, Any]]:
        """Path of a run → its ``metrics.json``."""
        return {path: folder.metrics() for path, folder in self.folders.items()}

    @functools.cached_property
    def training(self) -> dict[Path, dict[str, Curve]]:
        """Path of a run → its curves over epochs, as far as they were kept."""
        return {path: training_curves(path) for path in self.folders}


def study_of(root: Path, results: Sequence[Result], rows: Sequence[Row]) -> Study:
    """Return the study of results and of the rows that summarise them."""
    grouped: dict[tuple[Any, ...], list[Result]] = {}
    for result in sorted(results, key=lambda r: (r.seed, str(r.folder))):
        grouped.setdefault(_key(result), []).append(result)
    backbones: dict[str, set[str]] = {}
    for row in rows:
        backbones.setdefault(row.dataset, set()).add(row.backbone)
    lines = [Line(row, tuple(grouped[_key(row)]), len(backbones[row.dataset]) > 1) for row in rows]
    return Study(root, tuple(lines))


def _key(one: Result | Row) -> tuple[Any, ...]:
    return one.dataset, one.method, one.backbone, one.variant, one.bits, one.direction
