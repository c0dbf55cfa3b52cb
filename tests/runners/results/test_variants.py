"""Names of recipes: what was set and differs, in as few settings as tell the recipes apart."""

from __future__ import annotations

import itertools
import random

import pytest

from common.config.run_config import compose
from runners.results.renderers import as_latex, as_markdown
from runners.results.tables import FILE, TOO_FEW, leaderboard
from runners.results.variants import name_variants
from tests.runners.results.test_leaderboard import rows_of, write_run

FROZEN = "model.standardize=true optim.name=adam optim.lr=1e-3 runner.epochs=8"


def labels(*runs: str, shared: str = "method=csq dataset=creatures_image") -> list[str]:
    words = [[*shared.split(), *run.split()] for run in runs]
    return [variant.label for variant in name_variants([compose(w).resolved for w in words])]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (["", FROZEN], ["", "lr 1e-3"]),
        (["", f"{FROZEN} optim.lr=1e-5"], ["", "epochs 8"]),
        ([FROZEN, FROZEN + " seed=1 bits=64"], ["", ""]),
        (["optim.lr=1e-3", "optim.lr=1e-4"], ["lr 1e-3", "lr 1e-4"]),
        (["runner.epochs=3", "optim.lr=1e-3"], ["epochs 3", "lr 1e-3"]),
        (["", "optim.lr=1e-3", "optim.lr=1e-3 runner.epochs=9"],
         ["", "lr 1e-3", "lr 1e-3, epochs 9"]),
        (["", "optim.groups.head.lr=1e-3"], ["", "head.lr 1e-3"]),
        (["", "schedule.name=cosine"], ["", "schedule cosine"]),
        (["", "dataset.split.seed=4"], ["", "split.seed 4"]),
        (["", "loss.name=hashnet"], ["", "loss hashnet"]),  # not the hashnet loss's own settings
        (["", "model.standardize=true"], ["", "standardize true"]),
        # how a run is done and shown, where, and with which encoder or code length
        (["", "runner.device=cpu data.workers=3 runner.threads=2 output=o runner.tensorboard=false "
          "runner.pictures=0 runner.checkpoint_every=5 data.feature_cache=off"], ["", ""]),
        (["", "backbone=pixels"], ["", ""]),
        (["bits=16 loss.lambda_quant=.5", "bits=32 loss.lambda_quant=.25"], ["", ""]),
        (["bits=16 loss.lambda_quant=.5", "bits=16 loss.lambda_quant=.25"],
         ["lambda_quant 0.5", "lambda_quant 0.25"]),
        # long ones
        (["", "eval.at=[1,2,3,4,5,6,7,8,9,10,11,12]"], ["", "at [1,2,3,4,5,…,9,10,11,12]"]),
        (["eval.at=[1,2,3,4,5,6,7,8,9,10,11,12]", "eval.at=[1,2,3,4,5,66,7,8,9,10,11,12]"],
         ["at [1,2,3,4,5,…,9,10,11,12], … #1", "at [1,2,3,4,5,…,9,10,11,12], … #2"]),
    ],
)  # fmt: skip
def test_labels(runs, expected):
    assert labels(*runs) == expected


def test_many_settings_are_cut_and_numbered():
    one = ["optim.lr=1e-3", "runner.epochs=9", "runner.batch_size=7", "loss.lambda_quant=.5"]
    runs = [" ".join(words) for size in (0, 3, 4) for words in itertools.combinations(one, size)]
    named = labels(*runs)
    assert named[0] == "" and named[-1] == "lr 1e-3, epochs 9, … #6"
    assert len(set(named)) == len(runs) and max(map(len, named)) < 50


def test_an_own_method_and_folder_have_no_shipped_recipe(tmp_path):
    runs = [compose(["method=csq", "dataset=folder", f"dataset.root={tmp_path}", f"optim.lr={lr}"])
            for lr in (1e-5, 1e-3)]  # fmt: skip
    configs = [dict(run.resolved) for run in runs]
    assert [v.label for v in name_variants(configs)] == ["", "lr 1e-3"]
    named = name_variants([{**config, "method": "mine"} for config in configs])
    assert [v.label for v in named] == ["lr 1e-5", "lr 1e-3"]
    assert named[1].settings == ("optim.lr=1e-3",)


VALUES = {"alpha": (1, 2), "beta": ("x", "y", "z"), "gamma": (True, False), "delta": (0.5, 0.25)}


@pytest.mark.parametrize("seed", range(25))
def test_as_few_settings_as_brute_force_finds(seed):
    """Of an unknown method: no shipped recipe, so every label has all chosen settings."""
    draw = random.Random(seed)
    recipes = [{k: draw.choice(v) for k, v in VALUES.items()} for _ in range(draw.randint(2, 5))]
    configs = [{"method": "mine", "bits": 8, "loss": recipe} for recipe in recipes]
    distinct = {tuple(recipe.values()) for recipe in recipes}
    fewest = next(
        size
        for size in range(len(VALUES) + 1)
        for keys in itertools.combinations(range(len(VALUES)), size)
        if len({tuple(recipe[k] for k in keys) for recipe in distinct}) == len(distinct)
    )
    named = [variant.label for variant in name_variants(configs)]
    for one, two in itertools.combinations(range(len(recipes)), 2):
        assert (named[one] == named[two]) == (recipes[one] == recipes[two])
    assert {len(label.split(", ")) if label else 0 for label in named} == {fewest}


def test_every_table_has_the_one_label_and_its_legend(tmp_path):
    for seed, alpha in ((0, 1), (1, 1), (0, 2)):
        write_run(tmp_path, 0.5, seed, alpha=alpha, beta=str(alpha) * 30)
    rows = rows_of(tmp_path)
    assert [row.name for row in rows] == ["csq (alpha 1)", "csq (alpha 2)"]
    table = leaderboard(rows, FILE)
    assert table.notes[-2:] == tuple(
        f"csq (alpha {a}): loss.alpha={a}, loss.beta={str(a) * 30}" for a in (1, 2)
    )
    for text in (as_markdown([table]), as_latex([table])):
        assert text.count("csq (alpha 2)") == 2 and "loss.beta=" in text.replace(r"\_", "_")


def test_a_legend_by_code_length_and_none_where_the_name_says_it(tmp_path):
    for bits in (16, 32):
        write_run(tmp_path / "a", 0.5, bits=bits, alpha=5 / bits)
        write_run(tmp_path / "b", 0.5, bits=16, alpha=5 / bits)
    assert leaderboard(rows_of(tmp_path / "a"), FILE).notes[-2:] == (
        "csq, 16 bits: loss.alpha=0.3125", "csq, 32 bits: loss.alpha=0.15625",
    )  # fmt: skip
    notes = leaderboard(rows_of(tmp_path / "b"), FILE).notes
    assert not any("loss.alpha" in note for note in notes)


def test_a_run_that_repeats_a_seed_is_no_further_seed(tmp_path, caplog):
    for seed, score in ((0, 0.5), (0, 0.5), (1, 0.7)):
        write_run(tmp_path, score, seed)
    (row,) = rows_of(tmp_path)
    assert (row.seeds, row.mean) == (2, pytest.approx(0.6))
    assert "left out: 1 of 3 runs of csq, 16 bits, which repeat a seed" in caplog.text


@pytest.mark.parametrize(("seeds", "told"), [(2, True), (4, False)])
def test_too_few_seeds_are_told(tmp_path, seeds, told):
    for method, shift in (("csq", 0.0), ("itq", 0.01)):
        for seed in range(seeds):
            write_run(tmp_path, 0.5 + shift * (-1) ** seed + 0.02 * seed, seed, method)
    rows = rows_of(tmp_path)
    assert any(row.alike for row in rows)
    assert (TOO_FEW in leaderboard(rows, FILE).notes) is told
