"""What a report is made from: the rows of finished runs, their folders and their datasets."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from common.code_files.run_codes import CodeSet
from common.config import schema
from common.config.layers import short_name
from common.registry import DATASETS
from dataset.base import HashDataset
from runners.results.leaderboard import Result, Row, grouped
from utils.errors import UserError


class DatasetReader:
    """Opens datasets of runs; keeps the last one, or what is wrong with it.

    A report is also made of runs that came from elsewhere, so their plugins are not executed: a
    dataset that only a plugin knows counts as not at hand.
    """

    def __init__(self) -> None:
        """Nothing is opened yet."""
        self._section: dict[str, Any] | None = None
        self._opened: HashDataset | str = ""

    def open(self, run: Result) -> HashDataset | str:
        """Return the dataset of a run, or the reason why there is none."""
        section = run.config["dataset"]
        if section != self._section:
            try:
                self._opened = _build(section)
            except Exception as error:  # whatever is wrong with it, the report goes on without
                kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
                self._opened = " ".join(f"{kind}{error}".split())[:300]
            self._section = section
        return self._opened

    def matching(self, run: Result, codes: CodeSet) -> HashDataset | str:
        """Return the dataset if the rows of ``codes`` carry the labels that they had in the run."""
        dataset = self.open(run)
        if isinstance(dataset, str):
            return dataset
        inside = bool((codes.rows < len(dataset)).all())
        if inside and np.array_equal(dataset.labels[codes.rows] > 0, codes.labels > 0):
            return dataset
        return "the dataset has changed since: its labels are not those of the run"


def _build(section: dict[str, Any]) -> HashDataset:
    entry = DATASETS.get(str(section.get("name")))
    values = {key: value for key, value in section.items() if key not in ("name", "config")}
    config: Any = schema.build(entry.config, values, "dataset", lambda path: "config.yaml")
    name = short_name(str(section.get("config", section.get("name", "dataset"))))
    return entry.target(config, name)


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
