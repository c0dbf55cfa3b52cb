"""A dataset in miniature: a few rows of each part of its split; its classes and attributes stay."""

from __future__ import annotations

import dataclasses

import numpy as np

from dataset.base import AuxiliaryInputs, GeneratedRows, HashDataset
from dataset.images import SelectedImages
from dataset.splits import PARTS, SplitManifest


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Rows of a miniature: of each part of the split, and of generated rows."""

    train: int
    query: int
    database: int
    val: int
    generated: int


def miniature(dataset: HashDataset, sizes: Sizes) -> HashDataset:
    """Return the dataset with at most ``sizes`` rows, renumbered in their order.

    Training rows come in pairs that share a label; half of the database shares one with a query, a
    quarter are training rows where the dataset's own database has them. Columns of labels stay, so
    that heads and losses have their real shapes.
    """
    split, labels = dataset.split, dataset.labels
    query = _spread(split.query, sizes.query)
    train = _with_mates(_spread(split.train, (sizes.train + 1) // 2), split.train, labels)
    train = _filled(train[: sizes.train], split.train, sizes.train)
    database = split.database
    relevant = database[(labels[database] @ labels[query].T > 0).any(1)]
    chosen = np.concatenate([
        _spread(relevant, sizes.database // 2),
        _spread(train[np.isin(train, database)], sizes.database // 4),
    ])  # fmt: skip
    parts = {
        "train": train,
        "val": _spread(split.val, sizes.val),
        "query": query,
        "database": _filled(_distinct(chosen), database, sizes.database),
    }
    generated = dataset.generated
    added = _spread(generated.rows, sizes.generated) if generated else np.empty(0, np.int64)
    rows = np.unique(np.concatenate([*parts.values(), added]))
    numbers = {part: np.searchsorted(rows, chosen) for part, chosen in parts.items()}
    rule = f"{split.rule}; {len(rows)} of the {len(dataset)} rows"
    return dataclasses.replace(
        dataset,
        images=SelectedImages(dataset.images, rows),
        labels=labels[rows],
        split=SplitManifest(**{part: numbers[part] for part in PARTS}, rule=rule),
        texts=None if dataset.texts is None else [dataset.texts[row] for row in rows],
        features=None if dataset.features is None else dataset.features.take(rows),
        extras={name: values[rows] for name, values in dataset.extras.items()},
        auxiliary={name: _selected(inputs, rows) for name, inputs in dataset.auxiliary.items()},
        generated=generated
        and GeneratedRows(generated.name, np.searchsorted(rows, added), generated.source),
    )


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """Return up to ``count`` of ``rows`` at even distances, in their order."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)] if count else rows[:0]


def _filled(chosen: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Return ``chosen`` and as many others of ``rows`` as make ``count``."""
    others = rows[~np.isin(rows, chosen)]
    return np.concatenate([chosen, _spread(others, max(count - len(chosen), 0))])


def _distinct(rows: np.ndarray) -> np.ndarray:
    """Return ``rows`` without repetition, in their order."""
    return rows[np.sort(np.unique(rows, return_index=True)[1])]


def _with_mates(chosen: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return ``chosen``, each followed by the first other of ``rows`` that shares a label."""
    found: list[int] = []
    for row in chosen.tolist():
        if row not in found:
            found.append(row)
        alike = rows[(labels[rows] @ labels[row] > 0) & ~np.isin(rows, [*found, *chosen])]
        found.extend(alike[:1].tolist())
    return np.array(found, np.int64)


def _selected(inputs: AuxiliaryInputs, rows: np.ndarray) -> AuxiliaryInputs:
    """Return those of ``inputs`` that belong to ``rows`` [n], which become 0..n-1."""
    kept = np.flatnonzero(np.isin(inputs.rows, rows))
    return dataclasses.replace(
        inputs,
        rows=np.searchsorted(rows, inputs.rows[kept]),
        texts=None if inputs.texts is None else [inputs.texts[i] for i in kept],
        images=None if inputs.images is None else SelectedImages(inputs.images, kept),
        features=None if inputs.features is None else inputs.features[kept],
    )
