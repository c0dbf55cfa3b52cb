"""What a report is made from: the rows of finished runs, their folders and their datasets."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from common.storage.run_folder import RunFolder
from runners.report.dataset_reader import DatasetReader
from runners.report.training import Curve, training_curves
from runners.results.leaderboard import Row
from runners.results.tables import by_task


@dataclasses.dataclass(frozen=True)
class Study:
    """All that a report is made from.

    Attributes:
        root: the folder that was looked through.
        rows: in the order of the leaderboard.
        datasets: opens the datasets of runs, for pictures, captions and names.
    """

    root: Path
    rows: tuple[Row, ...]
    datasets: DatasetReader = dataclasses.field(default_factory=DatasetReader)

    @property
    def tasks(self) -> dict[tuple[str, str], list[Row]]:
        """(dataset, direction) → its rows."""
        return by_task(self.rows)

    @functools.cached_property
    def metrics(self) -> dict[Path, dict[str, Any]]:
        """Path of a run → its ``metrics.json``."""
        return {result.folder: result.metrics for row in self.rows for result in row.results}

    @functools.cached_property
    def folders(self) -> dict[Path, RunFolder]:
        """Every run once, by its path."""
        return {path: RunFolder(path) for path in self.metrics}

    @functools.cached_property
    def training(self) -> dict[Path, dict[str, Curve]]:
        """Path of a run → its curves over epochs, as far as they were kept."""
        return {path: training_curves(path) for path in self.folders}
