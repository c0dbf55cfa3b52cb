"""A wrong setting of a method shows in the neutral keys of its recipe."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from runners.recipes.papers import PaperRun
from runners.sweeps.sweep import expand, read_sweep, sweep_file
from tests.papers.conftest import RECIPES
from tests.papers.harness import run_disagreements, runs_of

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
    ("umoed.coco", {"model.slots": 4}, "loss.slots_per_expert"),
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
    ("fire_csq.nuswide", {"model.bias": True}, "hash_head"),
    ("fire_csq.nuswide", {"runner.drop_last": False}, "drop_last"),
]


def changed(name: str, bits: int, settings: dict[str, Any]) -> PaperRun:
    """Return the run of a recipe with other settings."""
    run = runs_of(name)[bits]
    path = sweep_file(run.sweep)
    sweep = read_sweep(path)
    one = {"method": [run.config.method], "dataset": [run.config.dataset_name], "bits": [bits]}
    if split := run.config.resolved["dataset"].get("split", {}).get("name"):
        one["dataset.split.name"] = [split]
    words = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    (config,) = expand(dataclasses.replace(sweep, grid=[one]), path, words)
    return PaperRun(run.sweep, name, config, run.table)


@pytest.mark.skipif(not RECIPES.is_file(), reason="../shared/papers/recipes.json is not here")
@pytest.mark.parametrize(("name", "settings", "key"), WRONG, ids=lambda v: str(v)[:60])
def test_a_wrong_setting_shows(name, settings, key):
    entries = json.loads(RECIPES.read_text(encoding="utf-8"))["recipes"]
    entry = next(entry for entry in entries if entry["id"] == name)
    bits = entry["bits"][0]
    lines = run_disagreements(entry, changed(name, bits, settings))
    assert any(line.partition(":")[0].startswith(key) for line in lines), lines
