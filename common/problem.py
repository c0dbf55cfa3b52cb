"""The task that constructors get to know; none of it is written by hand in a YAML."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Problem:
    """The task that a model and a loss are built for.

    Attributes:
        bits: code length K.
        n_classes: number of classes C.
        n_train: number of training rows N (a memory bank has one row for each).
        multi_label: whether a row may have more than one label.
        class_names: C names.
        train_labels: float [N,C], labels of the training rows, or None.
        attributes: float [C,A], one row of attribute values per class, or None.
        attribute_names: A names.
        seen_classes: indices of the classes that training rows may have (all C by default).
        generator: of the random draws at construction (centres, proxies).
    """

    bits: int
    n_classes: int
    n_train: int = 0
    multi_label: bool = False
    class_names: tuple[str, ...] = ()
    train_labels: Tensor | None = None
    attributes: Tensor | None = None
    attribute_names: tuple[str, ...] = ()
    seen_classes: tuple[int, ...] = ()
    generator: torch.Generator = dataclasses.field(default_factory=torch.Generator)
