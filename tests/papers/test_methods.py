"""Head, loss and optimisation of every method are its release's, or a deviation says why not."""

from __future__ import annotations

import fnmatch
import functools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.config.run_config import compose
from tests.papers.methods import method_values

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECIPES = ROOT.parent / "shared/papers/recipes.json"
KEYS = (
    "hash_head", "head_batch_norm", "hash_init", "loss", "memory", "second_optimiser", "ema_update",
    "optimiser", "weight_decay", "schedule", "clipping", "drop_last", "shuffle", "evaluation.code",
    "batch_size", "epochs",
)  # fmt: skip
ABSENT: dict[str, Any] = {"head_batch_norm": "absent"}
"""What an entry means that leaves a key out; None for the others."""
LENGTHS = ("16", "32", "64")
ATTRIBUTES = {"awa2": 85, "cub": 312, "sun": 102}

Entry = dict[str, Any]


def entries() -> list[Entry]:
    return json.loads(RECIPES.read_text())["recipes"] if RECIPES.is_file() else []


@functools.cache
def deviations() -> list[dict[str, str]]:
    read = yaml.safe_load((ROOT / "configs/deviations.yaml").read_text())
    return read["deviations"] if isinstance(read, dict) else read


def composed(entry: Entry, bits: int, **more: Any):
    """Return the run of an entry, by the table of settings."""
    chosen: dict[str, Any] = {"dataset": entry["dataset"], "bits": bits}
    for row in yaml.safe_load((HERE / "method_settings.yaml").read_text()):
        if fnmatch.fnmatch(entry["id"], row["recipe"]):
            chosen |= row["set"]
    chosen |= more
    text = [f"{key}={'null' if value is None else value}" for key, value in chosen.items()]
    return compose([word.replace("True", "true").replace("False", "false") for word in text])


def values_of(entry: Entry, bits: int, **more: Any) -> dict[str, Any]:
    attributes = ATTRIBUTES.get(entry["dataset"], 0)
    return method_values(
        composed(entry, bits, **more), entry["recipe"]["labels"]["count"], attributes
    )


def flat(value: Any, path: str) -> dict[str, Any]:
    """Return dotted paths → values; lists of mappings by number, others are compared whole."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = {str(number): part for number, part in enumerate(value)}
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {k: v for key, part in value.items() for k, v in flat(part, f"{path}.{key}").items()}


def expected(entry: Entry, bits: int) -> dict[str, Any]:
    """Return dotted paths → values of the recipe at a length."""
    found: dict[str, Any] = {}
    for key in KEYS:
        value: Any = entry["recipe"]
        for part in key.split("."):
            value = value.get(part, ABSENT.get(key)) if isinstance(value, dict) else None
        found |= flat(value, key)
    return {k: v for k, v in found.items() if k.rpartition(".")[2] not in {*LENGTHS} - {str(bits)}}


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, (int, float)) and isinstance(b, (int, float)) and not isinstance(a, bool):
        return abs(a - b) <= 1e-6 * abs(a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


def differing(entry: Entry, bits: int, **more: Any) -> dict[str, tuple[Any, Any]]:
    """Return dotted key → (recipe, ours) of all that do not agree."""
    ours: dict[str, Any] = {}
    for key, value in values_of(entry, bits, **more).items():
        if key in KEYS:
            ours |= flat(value, key)
    wanted = expected(entry, bits)
    missing = object()
    return {
        key: (wanted.get(key, "no such key"), ours.get(key, "no such key"))
        for key in sorted({*wanted, *ours})
        if not equal(wanted.get(key, missing), ours.get(key, missing))
    }


def declared(entry: Entry, key: str) -> bool:
    return any(
        fnmatch.fnmatch(entry["id"], row["recipe"])
        and (fnmatch.fnmatch(key, row["key"]) or key.startswith(row["key"] + "."))
        for row in deviations()
    )


@pytest.mark.skipif(not entries(), reason="../shared/papers/recipes.json is not there")
@pytest.mark.parametrize("recipe", entries(), ids=lambda recipe: recipe["id"])
def test_a_method_is_that_of_its_release(recipe):
    for bits in {recipe["bits"][0], recipe["bits"][-1]}:
        found = differing(recipe, bits)
        undeclared = {key: pair for key, pair in found.items() if not declared(recipe, key)}
        assert not undeclared, f"{recipe['id']} at {bits} bits (recipe, ours): {undeclared}"


@pytest.mark.skipif(not entries(), reason="../shared/papers/recipes.json is not there")
def test_every_deviation_is_one():
    """A deviation that no longer is one has to leave the list."""
    families = {row["recipe"]: row["key"] for row in deviations()}
    assert all(row["reason"] for row in deviations())
    for row in deviations():
        fitting = [e for e in entries() if fnmatch.fnmatch(e["id"], row["recipe"])][:1]
        for entry in fitting if row["key"].split(".")[0] in KEYS else []:
            found = differing(entry, entry["bits"][0])
            assert any(k == row["key"] or k.startswith(row["key"] + ".") for k in found), row
    assert families


WRONG = [  # entry, a setting, the key that has to tell
    ("dcmht.coco", {"optim.lr": 1e-3}, "optimiser.groups.1.lr"),
    ("dcmht.coco", {"optim.groups.backbone.lr": 1e-4}, "optimiser.groups.0.lr"),
    ("dcmht.coco", {"optim.weight_decay": 0.1}, "weight_decay.value"),
    ("dcmht.coco", {"optim.max_grad_norm": 0.0}, "clipping"),
    ("dcmht.coco", {"optim.eps": 1e-8}, "optimiser.eps"),
    ("dcmht.coco", {"optim.name": "adamw"}, "optimiser.name"),
    ("dcmht.coco", {"schedule.warmup": 0.2}, "schedule.warmup_share"),
    ("dcmht.coco", {"schedule.name": "warmup_constant"}, "schedule.name"),
    ("dcmht.coco", {"loss.vartheta": 0.5}, "loss.vartheta"),
    ("dcmht.coco", {"loss.power": 1}, "loss.form"),
    ("dcmht.coco", {"loss.quan_alpha": 0.1}, "loss.quan_alpha"),
    ("dcmht.coco", {"model.hidden": 64}, "hash_head"),
    ("dcmht.coco", {"model.head": "attention"}, "hash_init.weight"),
    ("dcmht.coco", {"runner.batch_size": 128}, "batch_size"),
    ("dcmht.coco", {"runner.accumulate": 2}, "batch_size"),
    ("dcmht.coco", {"runner.epochs": 50}, "epochs"),
    ("dcmht.coco", {"runner.drop_last": True}, "drop_last"),
    ("dcmht.coco", {"runner.clip_norm": 1.0}, "clipping.kind"),
    ("baseline.coco", {"model.dropout": 0.1}, "loss.dropout"),
    ("dnph.flickr25k", {"loss.proxies": "trained"}, "second_optimiser.per"),
    ("dnph.flickr25k", {"loss.proxies": "trained"}, "loss.proxies"),
    ("dsph.coco", {"optim.groups.proxies.momentum": 0.0}, "second_optimiser.momentum"),
    ("dsph.coco", {"loss.proxy_seed": 1}, "loss.proxies"),
    ("dsph.coco", {"loss.threshold": 0.5}, "loss.theta.16"),
    ("mith.coco", {"loss.lambda_inter": 1.0}, "loss.beta"),
    ("mith.coco", {"model.transformer_layers": 1}, "loss.transformer_layers"),
    ("vtph.nuswide", {"loss.gamma": 28.0}, "loss.gamma"),
    ("vtph.nuswide", {"backbone.freeze": "none"}, "optimiser.groups.0.params"),
    ("dimch.coco", {"model.set_size": 4}, "loss.M_instances"),
    ("umoed.coco", {"model.set_size": 8}, "loss.M_queries.16"),
    ("umoed.coco", {"model.experts": 4}, "loss.experts"),
    ("twdh.flickr25k", {"model.long_bits": 256}, "hash_head"),
    ("shc.coco", {"schedule.floor": 0.0}, "schedule.to"),
    ("shc.coco", {"runner.classifier.floor": None}, "loss.class_schedule"),
    ("shc.coco", {"runner.min_distance": 3}, "loss.d"),
    ("pzsh_first.awa2", {"model.twin_moves": "training"}, "ema_update"),
    ("pzsh_first.awa2", {"loss.center_seed": 42}, "loss.centre_seed"),
    ("pzsh_later.cub", {"schedule.every": 30}, "schedule.every_epochs"),
    ("deephash_csq.coco", {"loss.several": "first"}, "loss.multi_label"),
    ("deephash_csq.imagenet", {"loss.several": "vote"}, "loss.multi_label"),
    ("deephash_csq.coco", {"loss.centers": "bernoulli"}, "loss.centres"),
    ("deephash_csq.coco", {"optim.alpha": 0.9}, "optimiser.alpha"),
    ("deephash_csq_resnet50.coco", {"model.init": "default"}, "hash_init.weight"),
    ("deephash_dpn.coco", {"loss.targets": "adaptive"}, "memory"),
    ("deephash_dsh.coco", {"loss.pairs": "batch"}, "memory"),
    ("deephash_dhn.mirflickr", {"loss.code": "tanh"}, "loss.pairs"),
    ("deephash_greedyhash.coco", {"loss.labels": "all"}, "loss.class_target"),
    ("deephash_greedyhash.coco", {"optim.groups.classifier.momentum": 0.0}, "loss.classifier"),
    ("fire_orthocos.cars", {"loss.centers": "bernoulli"}, "loss.centres"),
    ("fire_orthocos.cars", {"method": "csq", "loss.name": "orthohash"}, "head_batch_norm"),
    ("fire_csq.nuswide", {"model.bias": True}, "hash_head"),
    ("fire_csq.nuswide", {"runner.drop_last": False}, "drop_last"),
]


@pytest.mark.skipif(not entries(), reason="../shared/papers/recipes.json is not there")
@pytest.mark.parametrize(("name", "setting", "key"), WRONG, ids=lambda v: str(v)[:60])
def test_a_wrong_setting_shows(name, setting, key):
    entry = next(entry for entry in entries() if entry["id"] == name)
    found = differing(entry, entry["bits"][0], **setting)
    assert any(k == key or k.startswith(key + ".") for k in found), found
