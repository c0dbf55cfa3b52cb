"""The task that constructors get to know; none of it is written by hand in a YAML."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Problem:
    """The task that a model and a loss are built for.

    ``generator`` is that of the random draws at construction (centres, proxies).
    """

    bits: int  # K
    n_classes: int  # C
    n_train: int = 0  # rows N (a memory bank has one row for each)
    multi_label: bool = False  # whether a row may have more than one label
    class_names: tuple[str, ...] = ()  # C
    train_labels: Tensor | None = None  # float [N,C]
    attributes: Tensor | None = None  # float [C,A], one row of attribute values per class
    attribute_names: tuple[str, ...] = ()  # A
    seen_classes: tuple[int, ...] = ()  # those that training rows may have (all C by default)
    generator: torch.Generator = dataclasses.field(default_factory=torch.Generator)
