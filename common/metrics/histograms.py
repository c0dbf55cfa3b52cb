"""Counting instead of sorting: per query, how many rows (and relevant rows) lie at each distance.

Hamming distances are the integers 0..K, so these two histograms hold everything that any ranking
metric can say about a query, ties included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

_FLOAT32_EXACT = 2**24  # integers up to here have no rounding in float32
_BYTES_PER_PAIR = 16  # key, label overlap and comparison in float32 or bool, key as int32
_TILE_CPU = (4_096, 2**21)  # rows and pairs of a tile: what stays in cache was fastest
_TILE_GPU = (65_536, 2**28)


@dataclasses.dataclass(frozen=True)
class Histograms:
    """Counts per query and distance; Q queries, K bits.

    Attributes:
        rows: int64 [Q,K+1], number of database rows at distance d.
        relevant: int64 [Q,K+1], number of relevant ones among them.
    """

    rows: Tensor
    relevant: Tensor

    @property
    def bits(self) -> int:
        """Code length K."""
        return int(self.rows.shape[1]) - 1

    @property
    def queries(self) -> int:
        """Number of queries Q."""
        return int(self.rows.shape[0])

    @property
    def database(self) -> int:
        """Number of database rows N."""
        return int(self.rows[0].sum()) if self.queries else 0

    @property
    def total_relevant(self) -> Tensor:
        """Number of relevant rows of each query, int64 [Q]."""
        return self.relevant.sum(1)

    def select(self, which: Tensor | slice) -> Histograms:
        """Return the histograms of some queries: a bool mask, positions, or a slice."""
        return Histograms(self.rows[which], self.relevant[which])


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return the quotient in float64, 0 where the denominator is 0."""
    return torch.where(denominator > 0, numerator.double() / denominator.clamp(min=1).double(), 0.0)


@torch.no_grad()
def count_histograms(
    query_codes: Tensor,
    query_labels: Tensor,
    database_codes: Tensor,
    database_labels: Tensor,
    *,
    device: torch.device | str | None = None,
    memory_mb: float = 256,
) -> Histograms:
    """Count, for every query, database rows and relevant database rows at every distance.

    Exact: all sums are integers below 2^24 in float32, and integer additions have no order, so
    neither the device nor the chunk size changes a count.

    Args:
        query_codes: [Q,K] of ±1, any dtype.
        query_labels: [Q,C] multi-hot (relevant = share a label), or integers [Q] (relevant =
            equal).
        database_codes: [N,K] of ±1.
        database_labels: [N,C] or [N], as the query's.
        device: where to count; None = where ``query_codes`` are.
        memory_mb: bound on the temporary memory in MiB, beside inputs and the result.

    Returns:
        :class:`Histograms` on the CPU.

    >>> h = count_histograms(
    ...     torch.tensor([[1, 1]]), torch.tensor([3]),
    ...     torch.tensor([[1, 1], [1, -1], [-1, 1]]), torch.tensor([3, 3, 0]))
    >>> h.rows, h.relevant
    (tensor([[1, 2, 0]]), tensor([[1, 1, 0]]))
    """
    where = torch.device(device) if device is not None else query_codes.device
    n_queries, bits = query_codes.shape
    n_rows = len(database_codes)
    width = bits + (query_labels.shape[1] if query_labels.ndim == 2 else 1)
    tile = _tile_shape(n_queries, n_rows, bits, width, where, int(memory_mb * 2**20))
    counts = torch.zeros(n_queries, bits + 1, 2, dtype=torch.int64)
    with torch.autocast(where.type, enabled=False):  # half precision would round the sums
        for top in range(0, n_queries, tile[0]):
            queries = slice(top, top + tile[0])
            codes = query_codes[queries].to(where, torch.float32)
            relevance = _relevance(query_labels[queries].to(where))
            found = torch.zeros(len(codes) * 2 * (bits + 1), dtype=torch.int64, device=where)
            for left in range(0, n_rows, tile[1]):
                rows = slice(left, left + tile[1])
                found += _count_tile(
                    codes,
                    database_codes[rows].to(where, torch.float32),
                    relevance(database_labels[rows].to(where)),
                )
            counts[queries] = found.view(-1, bits + 1, 2).cpu()
    return Histograms(rows=counts.sum(2), relevant=counts[..., 1].contiguous())


def _count_tile(queries: Tensor, rows: Tensor, relevant: Tensor) -> Tensor:
    """Return the counts [q·(K+1)·2] over (query, distance, relevant) of one tile of pairs.

    The key 2(K+1)·q + 2·d + relevant has 2·d = K - a·b, so one matrix product makes it.
    """
    n, bits = queries.shape
    base = torch.arange(n, device=queries.device, dtype=torch.float32) * (2 * (bits + 1)) + bits
    key = torch.addmm(base[:, None], queries, rows.T, alpha=-1)  # [q,n]
    key += relevant
    return torch.bincount(key.to(torch.int32).view(-1), minlength=n * 2 * (bits + 1))


def _relevance(labels: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function from labels of rows to relevance bool [q,n] for these queries' labels."""
    if labels.ndim == 1:
        return lambda rows: labels[:, None] == rows[None, :]
    multi_hot = labels.to(torch.float32)
    return lambda rows: multi_hot @ rows.to(torch.float32).T > 0


def _tile_shape(
    n_queries: int, n_rows: int, bits: int, width: int, device: torch.device, budget: int
) -> tuple[int, int]:
    """Return how many queries and rows to treat at once within ``budget`` bytes.

    A quarter of the budget goes to a tile's rows as float32, a quarter to the queries and their
    counters, a half to the pairs. The keys of a tile stay below 2^24.
    """
    most_rows, most_pairs = _TILE_CPU if device.type == "cpu" else _TILE_GPU
    rows = max(1, min(n_rows, budget // 4 // (4 * width), most_rows))
    pairs = min(budget // 2 // _BYTES_PER_PAIR, most_pairs)
    per_query = 4 * width + 2 * 8 * 2 * (bits + 1)
    queries = min(n_queries, pairs // rows, budget // 4 // per_query)
    return max(1, min(queries, _FLOAT32_EXACT // (2 * (bits + 1)))), rows
