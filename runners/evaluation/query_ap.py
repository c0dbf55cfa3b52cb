"""AP of every query, stored beside ``metrics.json`` for paired tests between methods.

``query_ap.npz``: direction → float32 [Q], expected AP over tie orders in the whole database, in the
order of the query rows of ``codes.h5``; NaN where a query without a relevant row is left out.
"""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from common.metrics.average_precision import average_precision
from common.metrics.histograms import Histograms
from dataset.splits import SplitManifest
from utils.errors import UserError
from utils.files import atomic_path
from utils.numpy_file import open_npz

FILE = "query_ap.npz"


def query_ap(counted: Mapping[str, Histograms], *, no_relevant: str) -> dict[str, np.ndarray]:
    """Return direction → AP float32 [Q] of what was counted."""
    by_direction = {}
    for direction, histograms in counted.items():
        values = average_precision(histograms).expected.to(torch.float32)
        if no_relevant == "skip":
            irrelevant = (histograms.total_relevant == 0).to(values.device)
            values = values.masked_fill(irrelevant, torch.nan)
        by_direction[direction] = values.cpu().numpy()
    return by_direction


def write_query_ap(folder: Path, values: dict[str, np.ndarray]) -> None:
    """Write the file into a run folder, atomically."""
    with atomic_path(folder / FILE) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **values)  # type: ignore[arg-type]


def read_query_ap(folder: Path, direction: str) -> np.ndarray | None:
    """Return AP float32 [Q] of a run, or None where it was not stored or cannot be read."""
    try:
        with open_npz(folder / FILE) as file:
            values = file.get(direction)
            is_known = values is not None and values.ndim == 1 and values.dtype.kind == "f"
            return values if is_known else None
    except (OSError, ValueError, EOFError, UserError, zipfile.BadZipFile, zlib.error):
        return None


def measured_rows(folder: Path) -> str | None:
    """Return a hash of the query and database rows of a run, or None where they were not stored.

    The split's own hash also covers the rows trained and selected on, which methods without an
    epoch to choose divide otherwise; queries can be paired all the same.
    """
    try:
        split = SplitManifest.load(folder / "split.npz")
    except UserError:
        return None
    none = np.empty(0, np.int64)
    return dataclasses.replace(split, train=none, val=none).hash
