"""What a report is made from: the rows of finished runs, their folders and their datasets."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from runners.report.dataset_reader import DatasetReader
from runners.results.leaderboard import Row, grouped


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
        return grouped(self.rows, "dataset", "direction")

    @property
    def metrics(self) -> dict[Path, dict[str, Any]]:
        """Path of a run → its ``metrics.json``."""
        return {result.folder: result.metrics for row in self.rows for result in row.results}
