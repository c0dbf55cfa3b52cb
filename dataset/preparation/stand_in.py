"""What stands in for a dataset that is not prepared: rows of its kind, drawn at random by a seed.

The protocol says how many classes there are, and which are trained on; the source says whether rows
have texts and attributes (:class:`~dataset.preparation.source.RowKind`). For trying a run before
its data is there; never for a number.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataset.base import HashDataset
from dataset.drawn_images import PHOTO_SIZES, DrawnImages
from dataset.preparation.index import index_file
from dataset.preparation.prepared_dataset import PreparedConfig
from dataset.preparation.protocol import Protocol
from dataset.preparation.source import Source
from dataset.splits import SplitManifest

OF_EACH_CLASS, LEAST_CLASSES = 4, 160
SEED = 0x5A0
ACTIVE = 20  # attributes that a class has, roughly
WORDS = ("red", "small", "old", "two", "near", "water", "street", "evening", "wooden", "running")


def is_prepared(config: PreparedConfig) -> bool:
    """Return whether the dataset has an index where ``config`` looks for it."""
    folder = Path(config.root).expanduser()
    return bool(config.root) and index_file(folder, config.source.name).is_file()


def stand_in(config: PreparedConfig, name: str) -> HashDataset:
    """Return some hundred drawn rows under the shape of the dataset that ``config`` names."""
    source, protocol = config.source, config.protocol()
    kind, rng = source.row_kind, np.random.default_rng(SEED)
    classes = protocol.published.get("classes") or len(protocol.classes or ())
    names = protocol.classes or tuple(f"class {c}" for c in range(classes))
    seen = _seen_classes(source, protocol)
    label = np.arange(max(classes, LEAST_CLASSES) * OF_EACH_CLASS) // OF_EACH_CLASS % classes
    labels = np.zeros((len(label), classes), np.float32)
    labels[np.arange(len(label)), label] = 1
    if source.multi_label:
        labels[np.arange(len(label)), rng.integers(0, classes, len(label))] = 1
    attributes = _strengths(rng, classes, kind.attributes) if kind.attributes else None
    return HashDataset(
        name=name,
        images=DrawnImages(len(label), SEED, ((kind.side,) * 2,) if kind.side else PHOTO_SIZES),
        labels=labels,
        class_names=names,
        multi_label=source.multi_label,
        split=_split(label, seen, protocol),
        texts=_texts(rng, labels, names, kind.texts) if kind.texts else None,
        attributes=attributes,
        attribute_names=tuple(f"has_part {a}::kind {a % 7}" for a in range(kind.attributes)),
        seen_classes=seen,
        extras={"image_attributes": attributes[label]}
        if attributes is not None and kind.image_attributes
        else {},
    )


def _seen_classes(source: Source, protocol: Protocol) -> tuple[int, ...]:
    """Return the first classes, as many as the protocol (else the source's first) trains on."""
    if protocol.seen is None:
        return ()
    counted = protocol if protocol.per_class else source.protocols[0]
    published, each = counted.published, counted.per_class
    if "train" in each:
        return tuple(range(published["train"] // each["train"]))
    return tuple(range(published["classes"] - published["query"] // each["query"]))


def _split(label: np.ndarray, seen: tuple[int, ...], protocol: Protocol) -> SplitManifest:
    """Return a split of the protocol's kind; ``label``: int [N], the class of each row."""
    place = np.arange(len(label)) % OF_EACH_CLASS
    if seen:
        is_seen = np.isin(label, seen)
        train, query = (place < 2) & is_seen, (place < 2) & ~is_seen
    else:
        train, query = np.isin(place, (1, 2)), place == 0
    in_database = ~query & (~train | (protocol.train_in_database and not seen))
    parts = {"train": train, "query": query, "database": in_database}
    rows = {name: np.flatnonzero(chosen) for name, chosen in parts.items()}
    return SplitManifest(**rows, rule=f"drawn rows in place of {protocol.name}")


def _texts(
    rng: np.random.Generator, labels: np.ndarray, names: tuple[str, ...], count: int
) -> list[tuple[str, ...]]:
    """Return ``count`` captions of each row, of its classes' names and other words."""
    texts = []
    for row in labels:
        own = " and ".join(names[c].replace("_", " ") for c in np.flatnonzero(row))
        texts.append(tuple(f"{own} with {' '.join(rng.choice(WORDS, 4))}" for _ in range(count)))
    return texts


def _strengths(rng: np.random.Generator, classes: int, attributes: int) -> np.ndarray:
    """Return float32 [C,A] in 0..1, most of them weak, as those of real classes."""
    strong = rng.random((classes, attributes)) < ACTIVE / attributes
    return np.where(strong, rng.uniform(0.5, 1, strong.shape), 0.1).astype(np.float32)
