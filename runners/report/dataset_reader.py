"""The dataset of a run, opened again for its pictures, captions and class names.

A report is also made of runs that came from elsewhere, so their plugins are not executed: a dataset
that only a plugin knows counts as not at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from common.code_files.run_codes import CodeSet
from common.config import schema
from common.config.layers import short_name
from common.registry import DATASETS
from dataset.base import HashDataset
from utils.errors import UserError


class DatasetReader:
    """Opens datasets of runs, each once; keeps the last one and what is wrong with the others."""

    def __init__(self) -> None:
        """Nothing is opened yet."""
        self._key = ""
        self._last: HashDataset | None = None
        self._missing: dict[str, str] = {}

    def open(self, run: Path) -> HashDataset | str:
        """Return the dataset of the run in folder ``run``, or the reason why there is none."""
        section = run_config(run).get("dataset")
        section = section if isinstance(section, dict) else {}
        key = repr(sorted(section.items(), key=repr))
        if key in self._missing:
            return self._missing[key]
        if key != self._key or self._last is None:
            try:
                self._last, self._key = _build(section), key
            except Exception as error:  # whatever is wrong with it, the report goes on without
                self._missing[key] = _reason(error)
                return self._missing[key]
        return self._last

    def matching(self, run: Path, codes: CodeSet) -> HashDataset | str:
        """Return the dataset if the rows of ``codes`` carry the labels that they had in the run."""
        dataset = self.open(run)
        if isinstance(dataset, str):
            return dataset
        rows = codes.rows
        inside = len(rows) == 0 or int(rows.max()) < len(dataset)
        if inside and np.array_equal(dataset.labels[rows] > 0, codes.labels > 0):
            return dataset
        return "the dataset has changed since: its labels are not those of the run"


def run_config(run: Path) -> dict[str, Any]:
    """Return ``config.yaml`` of a run as plain mappings, ``{}`` where it cannot be read."""
    try:
        loaded = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _build(section: dict[str, Any]) -> HashDataset:
    entry = DATASETS.get(str(section.get("name")))
    values = {key: value for key, value in section.items() if key not in ("name", "config")}
    config: Any = schema.build(entry.config, values, "dataset", lambda path: "config.yaml")
    name = short_name(str(section.get("config", section.get("name", "dataset"))))
    return entry.target(config, name)


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]
