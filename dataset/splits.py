"""Split manifests: which rows are train, val, query and database, by a stated rule, with a hash.

Rules (``dataset.split.rule``):

``permutation``
    DCMHT's and MITH's: a seeded permutation of all rows; the first ``query`` rows are the queries,
    the next ``train`` are for training, everything after the queries is the database (so training
    rows are part of it).
``per_class``
    The image-hashing habit: per class, ``query`` random rows are queries and ``train`` others are for
    training; the database is every row that is no query.
``seen_unseen``
    Zero-shot: ``train`` rows of every seen class, ``query`` rows of every unseen class, database =
    every row that is neither (``train_in_database: true`` adds the training rows).
``file``
    Row numbers from an ``.npz`` with ``train``, ``query``, ``database`` (and perhaps ``val``).

``val`` rows are cut from the training rows when a run selects its epoch on them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from utils.errors import UserError

PARTS = ("train", "val", "query", "database")


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """Keys of ``dataset.split``; what a rule does not use stays None."""

    rule: str = "permutation"
    seed: int = 1814
    query: int | None = None  # rows (permutation) or rows per class (per_class, seen_unseen)
    train: int | None = None  # the same; None = all that are left
    train_in_database: bool = True
    file: str | None = None


@dataclasses.dataclass(frozen=True)
class SplitManifest:
    """Row numbers (int64, 0-based) of each part, and the rule that made them."""

    train: np.ndarray
    query: np.ndarray
    database: np.ndarray
    val: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    rule: str = ""

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of all row numbers, part by part."""
        digest = hashlib.sha256()
        for part in PARTS:
            rows = np.ascontiguousarray(getattr(self, part), dtype="<i8")
            digest.update(f"{part}:{len(rows)};".encode())
            digest.update(rows.tobytes())
        return digest.hexdigest()[:16]

    def with_val(self, size: int, seed: int) -> SplitManifest:
        """Return a manifest whose ``val`` is ``size`` seeded random training rows, cut from ``train``.

        Raises:
            UserError: no training row would be left.
        """
        if size <= 0:
            return self
        if size >= len(self.train):
            raise UserError(
                f"eval.val_size={size} leaves no training row of the {len(self.train)} there are; "
                "give fewer, or eval.select=last to train on all of them."
            )
        order = np.random.default_rng([seed, 0x7A1]).permutation(len(self.train))
        held_out = np.sort(order[:size])
        keep = np.setdiff1d(np.arange(len(self.train)), held_out)
        return dataclasses.replace(
            self, train=self.train[keep], val=self.train[held_out],
            rule=f"{self.rule}; val: {size} of the training rows, seed {seed}",
        )  # fmt: skip
