"""Which published protocol a run's rows follow: drawn by it, stated by a setting, or by counts.

Datasets with official files are drawn by a protocol. ``mat``, ``lists`` and ``features`` hold rows
of such a dataset without its name: ``dataset.protocol: flickr25k/mith`` states it and is held to
the published numbers when the dataset is opened; so is ``imagenet100/lists``, of pictures that are
known by their lists alone. Unstated, rows that have all the numbers of a protocol, and its seed
where it has one, follow it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from common.registry import DATASETS
from dataset.preparation.protocol import Protocol, ProtocolSet
from dataset.sources.list_protocols import LISTED_SETS
from dataset.splits import SplitConfig
from utils.errors import UserError, unknown_name

PARTS = ("query", "train", "database")
WITHOUT_NAME = ("mat", "lists", "features")
"""Datasets that may hold rows of another under a protocol of its."""


@dataclasses.dataclass(frozen=True)
class Followed:
    """A protocol that rows follow.

    Attributes:
        dataset: the dataset whose protocol it is (``coco``, also where the rows are ``mat``'s).
        protocol: see there.
        how: ``drawn by it``, ``stated``, or ``by its numbers of rows and classes``.
    """

    dataset: str
    protocol: Protocol
    how: str

    def section(self) -> dict[str, Any]:
        """Return the section ``dataset`` of settings that draw these rows by their own name."""
        name = self.protocol.name
        if any(self.dataset == listed.name for listed in LISTED_SETS):
            protocol = f"{self.dataset}/{name}"
            return {"config": self.dataset, "name": "lists", "protocol": protocol, "split": {}}
        return {"config": self.dataset, "name": self.dataset, "split": {"name": name}}


def sources() -> Iterator[ProtocolSet]:
    """Yield all datasets with official files, and those with published lists alone."""
    for name in DATASETS.names():
        source = getattr(DATASETS.get(name).config, "source", None)
        if source is not None:
            yield source
    yield from LISTED_SETS


def stated_protocol(text: str) -> tuple[ProtocolSet, Protocol]:
    """Return the dataset and the protocol that ``coco/dcmht`` names.

    Raises:
        UserError: no such dataset or protocol.
    """
    known = {source.name: source for source in sources()}
    dataset, slash, name = text.partition("/")
    if not slash:
        raise UserError(
            f"dataset.protocol={text}: a dataset and a protocol of its are needed, as coco/dcmht."
        )
    if dataset not in known:
        raise unknown_name("dataset in dataset.protocol", dataset, known)
    return known[dataset], known[dataset].protocol(name)


def completed(split: SplitConfig, protocol: str) -> SplitConfig:
    """Return ``split`` with the numbers of a protocol (``coco/mith``) where it has none.

    Raises:
        UserError: no such protocol, or one that permutes no rows.
    """
    source, stated = stated_protocol(protocol)
    if stated.query is None or stated.lists is not None:
        raise UserError(
            f"dataset.protocol={protocol} reads lists or marks and permutes no rows: `main.py "
            f"prepare {source.name}` reads .mat files too, and dataset={source.name} "
            f"dataset.split.name={stated.name} draws their rows."
        )
    return dataclasses.replace(
        split,
        query=stated.query if split.query is None else split.query,
        train=stated.train if split.train is None else split.train,
        seed=stated.seed if split.seed == SplitConfig.seed else split.seed,
    )


def check_stated(text: str | None, labels: np.ndarray, parts: Mapping[str, int]) -> None:
    """Hold rows to the published numbers of the protocol that a dataset states, if it does.

    Args:
        text: ``dataset.protocol``.
        labels: [N,C] of the rows, without generated ones.
        parts: numbers of rows by part; ``{}`` before any is drawn.

    Raises:
        UserError: no such protocol, or other numbers.
    """
    if text is None:
        return
    _, protocol = stated_protocol(text)
    unlabelled = int((labels.sum(1) == 0).sum())
    counts = {"rows": len(labels), "classes": labels.shape[1], "unlabelled": unlabelled, **parts}
    least = {} if protocol.keep_unlabelled else {"unlabelled": 0}
    wrong = {
        name: number
        for name, number in {**least, **protocol.published}.items()
        if counts.get(name, number) != number
    }
    if wrong:
        words = {"rows": "rows in all", "classes": "classes", "unlabelled": "rows without a label"}
        theirs = ", ".join(f"{n:,} {words.get(name, f'{name} rows')}" for name, n in wrong.items())
        ours = ", ".join(f"{counts[name]:,}" for name in wrong)
        raise UserError(
            f"dataset.protocol={text} has {theirs}, but here are {ours}; mend dataset.split or the "
            "files, or leave dataset.protocol out (results are then compared with no paper)."
        )


def followed(dataset: Mapping[str, Any], protocol: Mapping[str, Any]) -> Followed | str:
    """Return the published protocol that a run follows, or why it follows none.

    Args:
        dataset: section ``dataset`` of the run's resolved settings.
        protocol: ``protocol`` of its ``metrics.json``: ``rows`` by part, and ``classes``.
    """
    rows = dict(protocol.get("rows", {}))
    rows["train"] = rows.get("train", 0) + rows.get("val", 0)
    classes = protocol.get("classes")
    name = str(dataset.get("name"))
    source = getattr(DATASETS.get(name).config, "source", None) if name in DATASETS else None
    if source is not None:
        split = dataset.get("split") or {}
        chosen = (split if isinstance(split, str) else split.get("name")) or ""
        known = {p.name: p for p in source.protocols}
        candidate = known.get(chosen or source.protocols[0].name)
        if candidate is None:
            return f"protocol {chosen} is not known"
        return _other_numbers(candidate, rows, None) or Followed(name, candidate, "drawn by it")
    if name not in WITHOUT_NAME:
        return f"{name} is not drawn by a published protocol"
    if dataset.get("protocol"):
        stated, candidate = stated_protocol(str(dataset["protocol"]))
        other = _other_draw(dataset, candidate) or _other_numbers(candidate, rows, classes)
        return other or Followed(stated.name, candidate, "stated")
    return _by_counts(dataset, rows, classes)


def _by_counts(
    dataset: Mapping[str, Any], rows: Mapping[str, int], classes: int | None
) -> Followed | str:
    """Return the first protocol that has all these numbers, and draws with the same seed."""
    listed = dataset["name"] == "lists"
    for source in sources():
        for protocol in source.protocols:
            complete = {*PARTS, "classes"} <= set(protocol.published)
            fits = (protocol.lists is not None) == listed and classes is not None
            other = _other_numbers(protocol, rows, classes) or _other_draw(dataset, protocol)
            if complete and fits and not other:
                return Followed(source.name, protocol, "by its numbers of rows and classes")
    return (
        f"{dataset['name']} states no published protocol (dataset.protocol), and its numbers of "
        "rows and classes are of none"
    )


def _other_numbers(protocol: Protocol, rows: Mapping[str, int], classes: int | None) -> str:
    """Return how the rows of the parts differ from the published numbers, or ``""``."""
    for part in PARTS:
        published = protocol.published.get(part)
        if published is not None and rows.get(part) != published:
            return f"{rows.get(part)} {part} rows, {protocol.name} has {published}"
    published = protocol.published.get("classes")
    if classes is not None and published is not None and classes != published:
        return f"{classes} classes, {protocol.name} has {published}"
    return ""


def _other_draw(dataset: Mapping[str, Any], protocol: Protocol) -> str:
    """Return how the draw of rows differs from the protocol's, or ``""``."""
    split = dataset.get("split") or {}
    rule = "file" if dataset["name"] == "lists" else split.get("rule", "file")
    if rule in ("file", "auto"):
        return ""  # rows that somebody drew before, or the protocol that the run states
    if rule != "permutation":
        return f"rows drawn by {rule}, {protocol.name} permutes them"
    if split.get("seed") != protocol.seed:
        return f"rows drawn with seed {split.get('seed')}, {protocol.name} has {protocol.seed}"
    return ""
