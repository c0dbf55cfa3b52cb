"""Short names for recipes of one method: what was set and differs, never what follows from it.

Runs of one method and dataset that differ in more than code length, seed and encoder are *recipes*.
A recipe's label holds the fewest settings that tell it from the others (of equally many the rate
first, then the shortest text), and of these only what differs from the method's file; the recipe
that ships has none: ``csq``, ``csq (lr 1e-3)``. A setting that each code length or encoder has one
value of, such as a weight of 5/K, makes no recipe; it stands in the legend below the tables.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.config import schema
from common.config.layers import Layer
from common.config.run_config import NOT_IDENTITY, compose_layers
from utils.errors import UserError
from utils.shown import brief

Flat = Mapping[str, Any]

_NO_RECIPE = {
    "bits", "seed", "method", "dataset.config", "runner.tensorboard", "runner.checkpoint_every",
    "data.feature_cache", "data.eval_batch_size", *NOT_IDENTITY,
}  # fmt: skip
"""Keys that have a column, or that decide how a run is done and shown."""

_GROUPS = "optim.groups."
_MOST_SETTINGS, _LONGEST_VALUE = 3, 24  # in a label
_TRIED = 3  # settings: more are found by leaving out
_ABSENT = "–"


@dataclasses.dataclass(frozen=True)
class Variant:
    """The recipe of a run.

    Attributes:
        label: ``lr 1e-3, epochs 8``; empty for the only recipe and for the one that ships.
        settings: ``key=value`` of all settings that were set and differ between the recipes.
    """

    label: str = ""
    settings: tuple[str, ...] = ()


def name_variants(configs: Sequence[Mapping[str, Any]]) -> list[Variant]:
    """Return the recipe of each run; ``configs`` are contents of ``config.yaml``."""
    flat = [schema.flat(config) for config in configs]
    groups: dict[tuple[Any, Any], list[int]] = {}
    for number, values in enumerate(flat):
        groups.setdefault((values.get("dataset.config"), values.get("method")), []).append(number)
    variants = [Variant()] * len(flat)
    for numbers in groups.values():
        named = _name_group([configs[n] for n in numbers], [flat[n] for n in numbers])
        for number, variant in zip(numbers, named, strict=True):
            variants[number] = variant
    return variants


def _name_group(configs: Sequence[Mapping[str, Any]], runs: Sequence[Flat]) -> list[Variant]:
    keys = sorted({key for run in runs for key in run} - _NO_RECIPE)
    keys = [key for key in keys if len({_seen(run, key) for run in runs}) > 1]
    keys = [key for key in keys if not _is_derived(key, runs, keys)]
    carried = [key for key in keys if _follows(key, ("backbone.config", "bits"), runs)]
    keys = [key for key in keys if key not in carried]
    told = [*keys, *(key for key in carried if not key.startswith("backbone."))]
    recipes: dict[tuple[str, ...], int] = {}
    for number, run in enumerate(runs):
        recipes.setdefault(tuple(_seen(run, key) for key in keys), number)
    labels = dict.fromkeys(recipes, "")
    if len(recipes) > 1:
        firsts = list(recipes.values())
        shipped = [_shipped(configs[n]) for n in firsts]
        texts = _labels(keys, [runs[n] for n in firsts], shipped, _short_names(runs))
        labels = dict(zip(recipes, texts, strict=True))
    return [
        Variant(
            labels[tuple(_seen(run, key) for key in keys)],
            tuple(f"{key}={_value(run[key])}" for key in sorted(told) if key in run),
        )
        for run in runs
    ]


def _seen(run: Flat, key: str) -> str:
    return repr(run[key]) if key in run else _ABSENT


def _follows(key: str, of: Sequence[str], runs: Iterable[Flat]) -> bool:
    """Return whether runs with equal values of ``of`` have equal values of ``key``."""
    values: dict[tuple[str, ...], str] = {}
    return all(
        values.setdefault(tuple(_seen(run, other) for other in of), _seen(run, key))
        == _seen(run, key)
        for run in runs
    )


def _is_derived(key: str, runs: Sequence[Flat], differing: Sequence[str]) -> bool:
    """Return whether nobody set ``key``: it follows from a section's value or a component's name.

    A parameter group has the values of ``optim`` and ``schedule`` where it has none of its own.
    """
    group, _, rest = key.removeprefix(_GROUPS).partition(".")
    if key.startswith(_GROUPS) and rest:
        section = rest if rest.startswith("schedule.") else f"optim.{rest}"
        having = [run for run in runs if key in run]
        own = [run for run in having if section in run and _seen(run, key) != _seen(run, section)]
        others = [run for run in having if section not in run]
        if not own and _follows(key, ("optim.name", "schedule.name"), others):
            return True
    if all(key in run for run in runs):
        return False
    names = (name for name in differing if name.endswith(".name") and name != key)
    return any(_follows(key, (name,), runs) for name in names)


def _shipped(config: Mapping[str, Any]) -> Flat | None:
    """Return the settings that a run has if nothing is set, None where they are not known.

    Of a dataset that does not do without settings, such as a folder, none ships.
    """
    try:
        top = {key: config[key] for key in ("method", "bits", "seed")}
        top["backbone"] = {"config": config["backbone"]["config"]}
        whole = config["dataset"]
        with contextlib.suppress(UserError):
            return _composed({**top, "dataset": {"config": whole["config"]}})
        flat = _composed({**top, "dataset": whole})
    except (UserError, KeyError, TypeError):  # an own method or data, a former key
        return None
    return {key: value for key, value in flat.items() if not key.startswith("dataset.")}


def _composed(top: dict[str, Any]) -> Flat:
    return schema.flat(compose_layers([Layer("shipped", top)]).resolved)


def _short_names(runs: Sequence[Flat]) -> dict[str, str]:
    """Return each key's shortest ending that no other key has: ``lr``, ``split.seed``."""
    keys = {key for run in runs for key in run}
    common = {key for key in keys if not key.startswith(_GROUPS)}
    names = {}
    for key in keys:
        parts = key.removeprefix(_GROUPS).removesuffix(".name").split(".")
        others = {other.removesuffix(".name") for other in common - {key}}
        endings = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
        names[key] = next(
            (
                ending for ending in endings
                if not any(f".{other}".endswith(f".{ending}") for other in others)
            ),
            key,
        )  # fmt: skip
    return names


def _labels(
    keys: Sequence[str], recipes: Sequence[Flat], shipped: Sequence[Flat | None],
    names: Mapping[str, str],
) -> list[str]:  # fmt: skip
    """Return the label of each recipe; distinct, and empty only for the one that ships."""
    words: list[dict[str, str]] = []  # of each recipe: key → text, without what ships
    for recipe, default in zip(recipes, shipped, strict=True):
        set_keys = [k for k in keys if default is None or _seen(recipe, k) != _seen(default, k)]
        words.append({k: f"{names[k]} {_short(_value(recipe.get(k)))}" for k in set_keys})

    def tells_apart(chosen: Sequence[str]) -> bool:
        texts = [tuple(own.get(key) for key in chosen) for own in words if own]
        return all(map(any, texts)) and len(set(texts)) == len(texts)

    def cost(chosen: Sequence[str]) -> tuple[bool, int, tuple[str, ...]]:
        length = sum(len(own.get(key, "")) for own in words for key in chosen)
        return "optim.lr" not in chosen, length, tuple(chosen)

    order = sorted(keys, key=lambda key: cost([key]))
    alike: dict[tuple[int, ...], str] = {}  # of keys that split the recipes in the same way, one
    for key in order:
        texts = [own.get(key) for own in words]
        alike.setdefault(tuple(-1 if t is None else texts.index(t) for t in texts), key)
    chosen = list(order)
    for size in range(1, _TRIED + 1):
        tried = itertools.combinations(alike.values(), size)
        found = [keys_of for keys_of in tried if tells_apart(keys_of)]
        if found:
            best = min(found, key=cost)
            chosen = list(best)
            break
    else:
        for key in reversed(order):
            fewer = [other for other in chosen if other != key]
            chosen = fewer if tells_apart(fewer) else chosen
    numbered = not tells_apart(chosen)  # values that are equal when shortened
    labels = []
    for number, own in enumerate(words, 1):
        said = [own[key] for key in chosen if key in own]
        more = len(said) > _MOST_SETTINGS
        if more or (numbered and said):
            said = [*said[: _MOST_SETTINGS - 1], f"… #{number}"]
        labels.append(", ".join(said))
    return labels


def _value(value: Any) -> str:
    """Return a setting as text: numbers as they are typed.

    >>> _value(0.001), _value(1.5e-05), _value(0.3125), _value(True), _value(["all", 1000])
    ('1e-3', '1.5e-5', '0.3125', 'true', '[all,1000]')
    """
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    return value if isinstance(value, str) else brief(value)


def _number(value: float) -> str:
    if not 0 < abs(value) < 0.01:
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    texts = (f"{value:.{digits}e}" for digits in range(18))
    mantissa, _, exponent = next(t for t in texts if float(t) == value).partition("e")
    return f"{mantissa}e{int(exponent)}"


def _short(text: str) -> str:
    """Return a long value with its middle left out."""
    half = _LONGEST_VALUE // 2
    return text if len(text) <= _LONGEST_VALUE else f"{text[: half - 1]}…{text[-half:]}"
