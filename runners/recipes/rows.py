"""The rows of a run, their split and their labels, in the words of recipes; no data is read."""

from __future__ import annotations

from typing import Any

from common.config.run_config import RunConfig
from dataset.lists import ListsConfig
from dataset.mat import MatConfig
from dataset.preparation.followed import stated_protocol
from dataset.preparation.prepared_dataset import PreparedConfig
from dataset.preparation.protocol import Protocol, Stated
from dataset.sources.cross_modal_protocols import GENERATOR, RULE
from dataset.splits import SplitConfig

_NUMBERS = ("total", "query", "train", "database")
_UNKNOWN: dict[str, Any] = {
    "order": None, "rule": None, "permutation": None, **dict.fromkeys(_NUMBERS), "validation": 0,
    "database_contains_train": None, "query_in_database": None, "unlabelled": None,
}  # fmt: skip
_MAT_UNLABELLED = {"drop": "left out", "keep": "kept", "error": "cannot occur"}


def describe_rows(config: RunConfig) -> dict[str, Any]:
    """Return ``rows`` and ``labels`` of a run, from its configuration alone.

    What a release states of its rows is repeated where the run follows the release's protocol with
    its numbers; numbers that the configuration changes are the changed ones. None: not known
    without the data, or not known at all.
    """
    dataset = config.dataset.config
    if isinstance(dataset, PreparedConfig):
        released = dataset.source.protocol(dataset.choice.name)
        rows, classes, use = _of_protocol(config, dataset.protocol(), released)
    elif stated := getattr(dataset, "protocol", None):
        _, released = stated_protocol(stated)
        rows, classes, use = _of_protocol(config, released, released)
    elif isinstance(dataset, ListsConfig):
        names = ", ".join(str(n) for n in (dataset.train, dataset.query, dataset.database) if n)
        rows, classes, use = {**_UNKNOWN, "order": "lists", "rule": f"lists {names}"}, None, None
    else:
        rows, classes, use = _of_rule(dataset), None, None
    return {
        "rows": _with_validation(config, rows),
        "labels": {"count": classes, "use": _use_of_labels(config, use)},
    }


def _of_protocol(
    config: RunConfig, own: Protocol, released: Protocol
) -> tuple[dict[str, Any], int | None, str | None]:
    """Return the rows that a protocol draws, its number of classes and the use of labels.

    ``own``: the released protocol with the numbers that the configuration sets.
    """
    classes = released.published.get("classes")
    numbers = _numbers(own, released)
    per_row = {"query": own.query, "train": own.train}
    stated = released.stated
    if stated is None:  # no release: what we do, in our words
        seed = {"generator": "of the project", "seed": own.seed}
        rows = {
            **_UNKNOWN, **numbers, "order": "of the official files",
            "rule": f"{own.name}: {own.papers}", "permutation": seed,
        }  # fmt: skip
        return rows, classes, None
    if numbers["train"] is not None and config.data.generated:
        numbers["train"] += stated.painted
    return _of_release(stated, numbers, per_row, own.seed), classes, stated.labels


def _of_release(
    stated: Stated, numbers: dict[str, int | None], counts: dict[str, int | None], seed: int | None
) -> dict[str, Any]:
    """Return the rows as a release states them; ``counts`` fill the words of its rule."""
    words = {part: f"{count:,}" for part, count in counts.items() if count is not None}
    rows = {
        "order": stated.order,
        "rule": stated.rule.format(**words),
        "permutation": (
            None if stated.generator is None else {"generator": stated.generator, "seed": seed}
        ),
        **{name: numbers[name] if name in stated.numbers else None for name in _NUMBERS},
        "validation": 0,
        "database_contains_train": stated.contains_train,
        "query_in_database": stated.contains_query,
        "unlabelled": stated.unlabelled,
    }
    return rows | ({"seen_classes": stated.seen_classes} if stated.seen_classes else {})


def _numbers(own: Protocol, released: Protocol) -> dict[str, int | None]:
    """Return the rows in all and of each part, under numbers that the configuration may set."""
    published = released.published
    numbers = {"total": published.get("rows"), **{p: published.get(p) for p in _NUMBERS[1:]}}
    database = numbers["database"]
    for part in ("query", "train"):
        before, now, each = numbers[part], getattr(own, part), getattr(released, part)
        if before is None or not now or not each or now == each:
            continue
        after = before * now // each
        numbers[part] = after
        if database is not None and (part == "query" or not own.train_in_database):
            database += before - after
    if database is not None and published.get("database") == published.get("train"):
        database = numbers["train"]  # the training rows are the database
    return {**numbers, "database": database}


def _of_rule(dataset: Any) -> dict[str, Any]:
    """Return the rows of a dataset that is split by a rule of ``dataset.split``."""
    split = getattr(dataset, "split", None)
    if not isinstance(split, SplitConfig):
        return dict(_UNKNOWN)
    rows = {**_UNKNOWN, "rule": f"dataset.split.rule={split.rule}", "query_in_database": False}
    if split.rule != "file":
        rows |= {
            "permutation": {"generator": GENERATOR, "seed": split.seed},
            "database_contains_train": split.train_in_database,
        }
    if split.rule == "permutation":
        rows |= {p: n for p in ("query", "train") if isinstance(n := getattr(split, p), int)}
        if split.train_in_database:
            rows["rule"] = RULE
    if isinstance(dataset, MatConfig):
        rows["unlabelled"] = _MAT_UNLABELLED.get(dataset.on_unlabelled)
    return rows


def _with_validation(config: RunConfig, rows: dict[str, Any]) -> dict[str, Any]:
    """Return the rows with those that the run holds back for choosing its epoch."""
    if config.eval.select != "val" or config.runner.name == "fit":
        return rows
    train, size = rows["train"], config.eval.val_size
    if isinstance(size, float):
        held: Any = f"{size:.0%} of the training rows" if train is None else round(size * train)
    else:
        held = size
    left = train if train is None or isinstance(held, str) else train - held
    return rows | {"train": left, "validation": held}


def _use_of_labels(config: RunConfig, use: str | None) -> str | None:
    """Return how the method uses labels, or else how the protocol's release does."""
    if config.model.name == "shc":
        several = getattr(config.loss.config if config.loss else None, "several", "")
        multi_label = getattr(getattr(config.dataset.config, "source", None), "multi_label", True)
        if several == "first" or not multi_label:
            return "first positive label only, in all three stages"
    if config.model.name == "pixel":
        return "all classes in the classifier"
    if config.model.name == "pzsh" and config.data.generated:
        return "all classes, unseen names and painted pictures included"
    return use
