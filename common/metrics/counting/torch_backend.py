"""Counting by matrix products and ``bincount`` in PyTorch: any device, bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.metrics.packed import Bytes, PackedRows

_FLOAT32_EXACT = 2**24  # integers up to here have no rounding in float32
_BYTES_PER_PAIR = 16  # key, label overlap and comparison in float32 or bool, key as int32
_TILE_CPU = (4_096, 2**21)  # rows and pairs of a tile that stays in cache
_TILE_GPU = (65_536, 2**28)


@torch.no_grad()
def count(
    query: PackedRows,
    database: PackedRows,
    levels: int,
    counts: NDArray[np.int64],
    *,
    device: torch.device,
    memory_mb: float,
) -> None:
    """Add to ``counts`` the pairs by distance and grade; all arguments fit together.

    All sums are integers below 2^24 in float32 (also where a GPU multiplies in TF32: the factors
    are 0 and ±1), and integer additions have no order, so neither device nor tile changes a count.

    Args:
        query: Q rows.
        database: N rows.
        levels: number of grades G; a row that shares G-1 labels or more has grade G-1.
        counts: int64 [Q,(K+1)·G], changed in place.
        device: where to count.
        memory_mb: bound on temporary memory in MiB.
    """
    bits, keys = query.bits, (query.bits + 1) * levels
    width = bits + (query.classes or 1)
    budget = int(memory_mb * 2**20)
    tile = _tile_shape(len(query), len(database), keys, width, device, budget)
    with torch.autocast(device.type, enabled=False):  # half precision would round the sums
        for top in range(0, len(query), tile[0]):
            part = query.select(slice(top, top + tile[0]))
            codes = _unpacked(part.codes, bits, device) * 2 - 1  # ±1 in float32 [q,K]
            grades = _grades(part, levels, device)
            part_counts = torch.zeros(len(part) * keys, dtype=torch.int64, device=device)
            # the key (K+1)·G·q + G·d + grade has G·d = (K - a·b)·G/2: one matrix product makes it
            base = torch.arange(len(part), device=device, dtype=torch.float32) * keys
            base += bits * levels / 2
            for left in range(0, len(database), tile[1]):
                rows = database.select(slice(left, left + tile[1]))
                signs = _unpacked(rows.codes, bits, device) * 2 - 1
                key = torch.addmm(base[:, None], codes, signs.T, alpha=-levels / 2)  # [q,n]
                key += grades(rows)
                part_counts += key.to(torch.int32).view(-1).bincount(minlength=len(part_counts))
            counts[top : top + tile[0]] += part_counts.view(-1, keys).cpu().numpy()


def _unpacked(packed: Bytes, bits: int, device: torch.device) -> Tensor:
    """Return packed bits as 0 and 1 in float32 [n,bits]; moved to the device packed."""
    values = torch.from_numpy(np.ascontiguousarray(packed)).to(device)
    shifts = torch.arange(8, dtype=torch.uint8, device=device)
    ones = (values[:, :, None] >> shifts) & 1  # [n,bytes,8]
    return ones.flatten(1)[:, :bits].to(torch.float32)


def _grades(query: PackedRows, levels: int, device: torch.device) -> Callable[[PackedRows], Tensor]:
    """Return the function from rows to their grades for these queries, [q,n]."""
    if query.classes is None:
        numbers = torch.from_numpy(query.labels).to(device)
        return lambda rows: numbers[:, None] == torch.from_numpy(rows.labels).to(device)[None, :]
    classes = query.classes
    multi_hot = _unpacked(query.labels.astype(np.uint8, copy=False), classes, device)

    def shared(rows: PackedRows) -> Tensor:
        labels = _unpacked(rows.labels.astype(np.uint8, copy=False), classes, device)
        return (multi_hot @ labels.T).clamp_(max=levels - 1)

    return shared


def _tile_shape(
    n_queries: int, n_rows: int, keys: int, width: int, device: torch.device, budget: int
) -> tuple[int, int]:
    """Return how many queries and rows to treat at once within ``budget`` bytes.

    A quarter of the budget goes to a tile's rows as float32, a quarter to the queries and their
    counters, a half to the pairs. The keys of a tile stay below 2^24.
    """
    most_rows, most_pairs = _TILE_CPU if device.type == "cpu" else _TILE_GPU
    rows = max(1, min(n_rows, budget // 4 // (4 * width), most_rows))
    pairs = min(budget // 2 // _BYTES_PER_PAIR, most_pairs)
    per_query = 4 * width + 2 * 8 * keys
    queries = min(n_queries, pairs // rows, budget // 4 // per_query)
    return max(1, min(queries, _FLOAT32_EXACT // keys)), rows
