"""Histograms of each query: database rows, and relevant ones, at each Hamming distance.

Distances are the integers 0..K, so every ranking metric of a query, ties included, follows from
these counts.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


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

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ``rows`` and ``relevant`` as numpy arrays, without a copy where possible."""
        return as_integers(self.rows), as_integers(self.relevant)

    def select(self, which: Tensor | slice) -> Histograms:
        """Return the histograms of some queries: a bool mask, positions, or a slice."""
        return Histograms(self.rows[which], self.relevant[which])


@dataclasses.dataclass(frozen=True)
class GradedHistograms:
    """Counts per query, distance and grade, the number of labels shared with the query.

    Attributes:
        counts: int64 [Q,K+1,G], number of database rows at distance d with grade g = 0..G-1.
    """

    counts: Tensor

    def binary(self) -> Histograms:
        """Return the histograms in which a row of any grade above 0 is relevant."""
        return Histograms(self.counts.sum(2), self.counts[:, :, 1:].sum(2))

    def select(self, which: Tensor | slice) -> GradedHistograms:
        """Return the histograms of some queries."""
        return GradedHistograms(self.counts[which])


def as_integers(counts: Tensor) -> NDArray[np.int64]:
    """Return counts as a contiguous int64 array on the CPU."""
    return np.ascontiguousarray(counts.cpu().numpy(), dtype=np.int64)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return the quotient in float64, 0 where the denominator is 0."""
    return torch.where(denominator > 0, numerator.double() / denominator.clamp(min=1).double(), 0.0)
