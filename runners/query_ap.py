"""AP of every single query, kept beside ``metrics.json`` for paired tests between methods.

``query_ap.npz``: direction → float32 [Q], expected AP over tie orders in the whole database, in the
order of the query rows of ``codes.h5``; NaN where a query without a relevant row is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from common.code_store import CodeSet
from common.directions import sides
from common.distributed import gather_rows, own_share
from common.metrics.average_precision import average_precision
from common.metrics.counting import count_histograms
from common.metrics.histograms import Histograms
from common.metrics.inputs import pack_sides
from utils.files import atomic_path

FILE = "query_ap.npz"


def query_ap(
    query: CodeSet, database: CodeSet, directions: Sequence[str], *,
    no_relevant: str, device: torch.device | str | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Return direction → AP float32 [Q]; under several processes each counts a share."""
    found = {}
    for direction in directions:
        asks, answers = sides(direction)
        rows, against = pack_sides(
            query.codes[asks], query.labels, database.codes[answers], database.labels
        )
        counted = count_histograms(rows.select(own_share(len(rows))), against, device=device)
        counted = Histograms(gather_rows(counted.rows), gather_rows(counted.relevant))
        values = average_precision(counted).expected.to(torch.float32)
        if no_relevant == "skip":
            values = values.masked_fill(counted.total_relevant == 0, torch.nan)
        found[direction] = values.cpu().numpy()
    return found


def write_query_ap(folder: Path, values: dict[str, np.ndarray]) -> None:
    """Write the file into a run folder, atomically."""
    with atomic_path(folder / FILE) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **values)  # type: ignore[arg-type]


def read_query_ap(folder: Path, direction: str) -> np.ndarray | None:
    """Return AP float32 [Q] of a run, or None where it was not kept."""
    try:
        with np.load(folder / FILE, allow_pickle=False) as file:
            return file.get(direction)
    except (OSError, ValueError):
        return None
