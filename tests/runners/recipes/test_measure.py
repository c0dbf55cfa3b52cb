"""Selection and measure in neutral keys, against the recipes of the releases."""

from __future__ import annotations

import fnmatch
import json

import pytest

from common.config.run_config import compose
from runners.recipes.measure import describe_measure
from tests.helpers import SHARED

RECIPES = SHARED / "papers" / "recipes.json"
FOUR = "eval.directions=[i2t,t2i,i2i,t2t]"
EACH = f"eval.select=query eval.epoch_per=direction {FOUR}"
BOTH = "eval.select=query eval.directions=[i2t,t2i] eval.measure=[mith@all]"
DEEPHASH = "eval.select=query eval.directions=[i2i] eval.measure=[deephash@{cut}]"
FIRE = "eval.select=query eval.every=10 eval.directions=[i2i] eval.measure=[fire@{cut}]"
SETTINGS = {  # pattern of entries → words; {every} and {cut} are looked up below
    "dcmht.*": f"{EACH} eval.measure=[dchmt@all]",
    "dcmht_toolkit.*": f"{EACH} eval.measure=[kalenforn@all]",
    "umoed.*": f"{EACH} eval.measure=[kalenforn@all]",
    "dimch.*": f"{EACH} eval.measure=[kalenforn@all]",
    "baseline.*": f"{EACH} eval.measure=[kalenforn@all]",
    "twdh.*": f"{EACH} eval.measure=[kalenforn@5000]",
    "dsph.*": f"{EACH} eval.measure=[mith@all]",
    "dnph.*": f"{EACH} eval.measure=[mith@all]",
    "mith.*": BOTH,
    "vtph.*": BOTH,
    "shc.*": "eval.select=query eval.every=5 eval.epoch_per=cut eval.at=[all,100,1000]",
    "pixel.*": "eval.select=last eval.measure=[fire@5000]",
    "pzsh_*": f"{DEEPHASH} eval.every=2",
    "deephash_*": f"{DEEPHASH} eval.every={{every}}",
    "fire_*": FIRE,
}
EVERY = {
    "csq": 10, "csq_resnet50": 10, "hashnet": 15, "dpn": 10, "dpsh": 5, "dsh": 15, "dtsh": 15,
    "greedyhash": 3, "dhn": 15,
}  # fmt: skip
CUTS = {  # of an entry, else of a dataset
    "pzsh_first.awa2": 4000, "pzsh_later.awa2": 4000, "cub": 1000, "nuswide_21": 5000,
    "coco": 5000, "imagenet": 1000, "imagenet100": 1000, "nuswide": 5000, "cars": 100,
    "fire_orthocos.mirflickr": 1000, "cifar10-ep1": 59000,
}  # fmt: skip
TIES = {"eval.measure": "by row number", "eval.at": "the mean over all orders"}


def entries() -> list[dict]:
    if not RECIPES.is_file():
        return []
    return json.loads(RECIPES.read_text(encoding="utf-8"))["recipes"]


def described(name: str, method: str) -> dict:
    words = next(words for like, words in SETTINGS.items() if fnmatch.fnmatch(name, like))
    variant, dataset = name.split(".")
    cut = CUTS.get(name, CUTS.get(dataset, -1))
    words = words.format(cut=cut, every=EVERY.get(variant.removeprefix("deephash_")))
    return describe_measure(compose([f"method={method}", "dataset=creatures_scenes", "bits=16",
                                     *words.split()]))  # fmt: skip


@pytest.mark.skipif(not RECIPES.is_file(), reason="the recipes of the papers are not here")
@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry["id"])
def test_every_release_can_be_set(entry):
    recipe, ours = entry["recipe"], described(entry["id"], entry["method"])
    assert ours["selection"] == recipe["selection"]
    theirs = {k: v for k, v in recipe["evaluation"].items() if k != "code"}  # the head's
    assert set(ours["evaluation"]) == set(theirs)
    for key, value in theirs.items():
        unknown = value is None and key != "cut"
        # the one deviation: the order of an unstable sort cannot be repeated
        if not unknown and key != "ties":
            assert ours["evaluation"][key] == value, key
    assert theirs["ties"] is None or theirs["ties"].startswith("order of ")
    assert ours["evaluation"]["ties"] in TIES.values()


def of(*words: str) -> dict:
    return describe_measure(compose(["method=dsph", "dataset=creatures_scenes", "bits=16", *words]))


def test_what_no_release_does_has_words_of_its_own():
    both = of("eval.at=[all,50]", "eval.no_relevant=skip")
    assert both["selection"] == {
        "rule": "best", "on": "held-out training rows", "every_epochs": 1,
        "directions": "one epoch by the sum of both directions",
    }  # fmt: skip
    assert both["evaluation"] == {
        "directions": ["i2t", "t2i"], "cut": [None, 50],
        "denominator": ["all", "min(relevant, k), ranking cut"],
        "empty_query": "left out of the mean", "relevance": "at least one shared label",
        "ties": TIES["eval.at"],
    }  # fmt: skip


def test_measures_that_differ_are_lists():
    mixed = of("eval.measure=[kalenforn@all,mith@50,deephash@-1]")["evaluation"]
    assert mixed["cut"] == [None, 50, "all but the last row"]
    assert mixed["denominator"] == ["all", "first_k_relevant", "retrieved"]
    assert mixed["empty_query"] == ["NaN for the whole mean", "0, counted", "0, counted"]
    assert mixed["ties"] == TIES["eval.measure"]


def test_the_exact_measure_of_all_rows_differs_from_a_release_in_ties_alone():
    exact, release = of()["evaluation"], of("eval.measure=[mith@all]")["evaluation"]
    assert {key for key in exact if exact[key] != release[key]} == {"ties"}
