"""The recipes of hash centres by name, as configurations choose them."""

from __future__ import annotations

from typing import Literal

from torch import Generator, Tensor

from models.centers.hash_centers import (
    balanced_rows,
    hadamard_centers,
    random_signs,
    spread_centers,
)
from models.centers.semantic import mds_centers

CenterKind = Literal["hadamard", "balanced", "bernoulli", "spread", "mds"]


def make_centers(kind: CenterKind, n_classes: int, bits: int, generator: Generator) -> Tensor:
    """Return centres [C,K] of ±1 by the recipe ``kind``, for any C and K.

    ``hadamard``: :func:`hadamard_centers`; ``balanced``: :func:`balanced_rows`; ``bernoulli``:
    :func:`random_signs`; ``spread``: :func:`spread_centers`; ``mds``: the largest least distance
    that a search finds.
    """
    recipes = {
        "hadamard": hadamard_centers, "balanced": balanced_rows, "bernoulli": random_signs,
        "spread": spread_centers, "mds": mds_centers,
    }  # fmt: skip
    return recipes[kind](n_classes, bits, generator)
