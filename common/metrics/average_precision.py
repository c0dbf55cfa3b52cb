"""Average precision over tied rankings, in closed form from histograms.

Rows at equal distance form a bucket whose inner order is arbitrary. AP is then a random number;
its expectation over all orders, and its extremes, follow from the two histograms alone.

Sources: expectation, McSherry & Najork, "Computing information retrieval performance measures
efficiently in the presence of tied scores", ECIR 2008; its use for hashing, He et al., "Hashing
as tie-aware learning to rank", CVPR 2018, arXiv:1705.08562. The extremes, the cut at rank R and
its three denominators are derived in counting/closed_forms.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.metrics.curves import mean_over_queries
from common.metrics.histograms import Histograms
from utils.errors import UserError, unknown_name

DENOMINATORS = ("retrieved", "min", "total")


class TieBand(NamedTuple):
    """A metric per query over all orders of tied rows.

    Attributes:
        expected: float64 [Q], mean over all orders, equally likely.
        worst: float64 [Q], least value that an order gives.
        best: float64 [Q], greatest value that an order gives.
    """

    expected: Tensor
    worst: Tensor
    best: Tensor


def average_precision(histograms: Histograms) -> TieBand:
    """Return AP over the whole database: the mean, over relevant rows, of precision at their ranks.

    A query without a relevant row has AP 0.

    >>> one_bucket = Histograms(torch.tensor([[3, 0]]), torch.tensor([[1, 0]]))
    >>> [round(float(value), 4) for value in average_precision(one_bucket)]
    [0.6111, 0.3333, 1.0]
    """
    return average_precision_at(histograms, None, "total")


def average_precision_at(
    histograms: Histograms, at: int | None, denominator: str = "min"
) -> TieBand:
    """Return AP@R: precision at each relevant rank 1..R, summed, then divided by the denominator.

    Args:
        histograms: counts of Q queries.
        at: the cut R ≥ 1; None or more than the database means no cut.
        denominator: what the sum is divided by: ``"retrieved"``, relevant rows at ranks 1..R
            (itself random under ties); ``"min"``, the lesser of R and all relevant rows, so that
            1 is reachable; ``"total"``, all relevant rows. Where it is 0, AP is 0.

    Raises:
        UserError: a cut below 1 or an unknown denominator.
    """
    if denominator not in DENOMINATORS:
        raise unknown_name("denominator of AP@R", denominator, DENOMINATORS)
    if at is not None and at < 1:
        raise UserError(f"AP@R needs a cut R of at least 1, but got {at}.")
    from common.metrics.counting import closed_forms

    bands = np.zeros((histograms.queries, 3))
    cut = min(at or histograms.database, histograms.database)
    divisor = DENOMINATORS.index(denominator)
    closed_forms.over_queries(
        closed_forms.average_precisions, *histograms.arrays(), cut, divisor, bands
    )
    return TieBand(*torch.from_numpy(bands).unbind(1))


def mean_band(band: TieBand) -> dict[str, float]:
    """Return the means over queries as ``{"expected", "worst", "best"}``; 0 without any query."""
    return {name: float(mean_over_queries(values)) for name, values in band._asdict().items()}
