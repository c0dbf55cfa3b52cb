"""Sweeps: which runs a file asks for, and that all of them end, whatever becomes of one."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import main
from common.config.run_config import compose
from common.storage.run_folder import RunFolder
from runners.inputs import loading
from runners.sweeps.status import group_by_data
from runners.sweeps.sweep import expand, read_sweep, run_sweep
from tests.common.config.test_layers import files_of
from tests.docs.test_guides import registered_as_before
from tests.helpers import PIXELS, QUICK, ROOT, outcome, run

TRAIN = dict(word.split("=") for word in QUICK)


def write_sweep(folder: Path, words: list[str] = (), **content: object) -> Path:
    """Write a sweep file whose ``set`` begins with ``words``."""
    settings = {key: yaml.safe_load(value) for key, value in (word.split("=") for word in words)}
    content["set"] = {**settings, **content.get("set", {})}
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def expanded(file: Path, *extra: str) -> list:
    return expand(read_sweep(file), file, extra)


def test_the_product_of_the_grid_in_its_order(tmp_path):
    grid = {"method": ["csq", "hashnet"], "dataset": ["folder"], "bits": [8, 16], "seed": [0, 1]}
    runs = expanded(write_sweep(tmp_path, grid=grid, output="there"), "runner.epochs=2")
    assert [(r.method, r.bits, r.seed) for r in runs] == [
        (method, bits, seed) for method in grid["method"] for bits in (8, 16) for seed in (0, 1)
    ]
    assert {r.output for r in runs} == {"there"}
    assert {r.runner.config.epochs for r in runs} == {2}


def test_overrides_choose_and_equal_runs_are_run_once(tmp_path):
    file = write_sweep(
        tmp_path, list(PIXELS),
        grid={"method": ["csq", "itq"], "dataset": ["folder"], "seed": [0, 1, 2]},
        overrides=[
            {"where": {"method": "itq"}, "set": {"seed": 0}},
            {"where": {"method": "csq", "seed": 2}, "set": {"loss.lambda_quant": 0.5}},
            {"where": {"method": "csq", "bits": 16}, "set": {"runner.epochs": 7}},
        ],
    )  # fmt: skip
    runs = expanded(file)
    assert [(r.method, r.seed) for r in runs] == [("csq", 0), ("csq", 1), ("csq", 2), ("itq", 0)]
    assert [r.loss.config.lambda_quant for r in runs[:3]] == [1e-4, 1e-4, 0.5]
    assert {r.runner.config.epochs for r in runs[:3]} == {7}  # `where` sees what `set` set


def test_several_grids_are_added_up(tmp_path):
    grids = [
        {"method": ["csq"], "dataset": ["folder"], "bits": [8]},
        {"method": ["itq"], "dataset": ["folder"], "bits": [8, 16]},
    ]
    runs = expanded(write_sweep(tmp_path, grid=grids))
    assert [(r.method, r.bits) for r in runs] == [("csq", 8), ("itq", 8), ("itq", 16)]


def test_keys_of_what_the_grid_chooses(tmp_path):
    grid = {"dataset.root": ["a", "b"], "dataset": ["folder"], "method": ["csq"]}
    runs = expanded(write_sweep(tmp_path, grid=grid))
    assert [r.dataset.config.root for r in runs] == ["a", "b"]


@pytest.fixture
def small(tmp_path, pictures):
    """Return a sweep file of three runs, and the folder where they go."""
    chosen = [word for word in pictures if not word.startswith("bits")]
    grid = {"method": ["lsh", "hashnet"], "bits": [8, 16]}
    overrides = [
        {"where": {"method": "hashnet"}, "set": {k: yaml.safe_load(v) for k, v in TRAIN.items()}},
        {"where": {"method": "lsh"}, "set": {"runner.threads": 1, "bits": 8}},
    ]
    out = tmp_path / "out"
    return write_sweep(tmp_path, chosen, grid=grid, overrides=overrides, output=str(out)), out


def test_a_sweep_runs_skips_and_reports(small, capfd):
    file, out = small
    assert main.main(["sweep", str(file), "--dry-run"]) == 0
    assert [line.split()[:2] for line in capfd.readouterr().out.splitlines()] == [["to", "do"]] * 3
    assert not out.exists()
    assert main.main(["sweep", str(file)]) == 0
    printed = capfd.readouterr()
    assert "3 runs: 0 done before, 3 to do" in printed.err and "hashnet" in printed.out
    with open(out / "leaderboard.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["method"], row["bits"]) for row in rows] == [
        ("hashnet", "8"), ("hashnet", "16"), ("lsh", "8"),
    ]  # fmt: skip
    assert len(list((out / "plots").glob("*.png"))) == 2

    def times(pattern: str) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in out.rglob(pattern)}

    before, figures = times("metrics.json"), times("*.png")
    assert main.main(["sweep", str(file)]) == 0
    assert "3 runs: 3 done before, 0 to do" in capfd.readouterr().err
    assert times("metrics.json") == before
    assert times("*.png") == figures  # they show the same, so they are not drawn again
    changed = next(out.glob("*hashnet-8bit*/metrics.json"))
    content = json.loads(changed.read_text())
    content["directions"]["i2i"]["pr_rank"]["precision"][0] /= 2
    changed.write_text(json.dumps(content))
    RunFolder(changed.parent).record_again(changed.name)
    assert main.main(["sweep", str(file)]) == 0
    capfd.readouterr()
    redrawn = {path.name for path, time in times("*.png").items() if time != figures[path]}
    assert redrawn == {"pr-folder-i2i-8bit.png"}
    assert main.main(["sweep", str(file), "--dry-run"]) == 0
    assert {line.split()[0] for line in capfd.readouterr().out.splitlines()} == {"done"}


def test_it_goes_on_after_a_failing_run(tmp_path, pictures, capfd):
    # the second run asks for text that the pictures do not have
    words = [*pictures, *QUICK]
    grid = {"method": ["hashnet", "dsph", "csq"]}
    file = write_sweep(tmp_path, words, grid=grid, output=str(tmp_path / "out"))
    assert main.main(["sweep", str(file)]) == 1
    printed = capfd.readouterr()
    assert "failed: folder-dsph" in printed.err and "needs image and text" in printed.err
    assert "Traceback" not in printed.err
    states = [
        RunFolder(p.parent).status()["state"] for p in (tmp_path / "out").rglob("status.json")
    ]
    assert states == ["done", "done"]  # a run refused before it began leaves no folder
    assert not list((tmp_path / "out").glob("*dsph*"))
    assert "csq" in printed.out and "hashnet" in printed.out


def test_two_workers_compute_what_one_does(small, tmp_path):
    file, out = small
    sweep = read_sweep(file)
    alone = run_sweep(expand(sweep, file))
    configs = expand(sweep, file, output=str(tmp_path / "both"))
    moved = tmp_path / "both" / configs[0].run_name  # of an interrupted sweep: names another output
    moved.mkdir(parents=True)
    shutil.copy(out / configs[0].run_name / "config.yaml", moved)
    both = run_sweep(configs, workers=2)
    assert [o.state for o in both] == ["done"] * 3, [o.reason for o in both]
    for one, two in zip(alone, both, strict=True):
        folders = [RunFolder(Path(o.config.output) / o.config.run_name) for o in (one, two)]
        assert folders[0].path.name == folders[1].path.name
        assert outcome(folders[0]) == outcome(folders[1])
    assert [o.state for o in run_sweep(configs, workers=2)] == ["skipped"] * 3


def test_runs_of_a_worker_share_data_and_compute_what_they_would_alone(
    captioned, tmp_path, monkeypatch
):
    words = [*(word for word in captioned if not word.startswith("bits")), *QUICK]
    shared = [run("method=dcmht", *words, f"bits={k}", f"output={tmp_path / 'a'}") for k in (4, 8)]
    kept = (list(loading._datasets.values()), list(loading._backbones.values()))
    shared.append(run("method=dcmht", *words, "bits=16", f"output={tmp_path / 'a'}"))
    assert len(kept[0]) == 1 and kept[0][0] is next(iter(loading._datasets.values()))
    assert len(loading._datasets) == 1 and len(loading._backbones) <= 1  # bounded
    words = ["method=dcmht", *words, "bits=16", f"output={tmp_path / 'b'}"]
    done = subprocess.run(
        [sys.executable, "main.py", "train", *words], cwd=ROOT, capture_output=True, text=True,
        timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    alone = RunFolder(tmp_path / "b" / shared[2].path.name)
    assert outcome(alone) == outcome(shared[2])


def test_runs_of_the_same_data_follow_each_other(tmp_path):
    grid = {"bits": [8, 16], "dataset.root": ["a", "b"], "method": ["csq", "hashnet"]}
    runs = expanded(write_sweep(tmp_path, ["dataset=folder", *PIXELS[:-1]], grid=grid))
    order = [run.dataset.config.root for run in group_by_data(runs)]
    assert order == ["a"] * 4 + ["b"] * 4
    assert {run.run_name for run in group_by_data(runs)} == {run.run_name for run in runs}


def test_a_worker_that_dies_fails_its_runs_only(tmp_path, pictures):
    plugin = tmp_path / "killer.py"
    plugin.write_text(
        "import multiprocessing, os, signal\n"
        "if multiprocessing.parent_process():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    content = {"output": str(tmp_path / "out"), "plugins": [str(plugin)]}
    file = write_sweep(tmp_path, [*pictures, *QUICK], grid={"method": ["csq"]}, **content)
    (ended,) = run_sweep(expanded(file), workers=2)
    assert ended.state == "failed" and "a worker process died" in ended.reason


def test_no_workers(small):
    from utils.errors import UserError

    with pytest.raises(UserError, match="workers=0 is not accepted; 1 to 9999"):
        run_sweep(expanded(small[0]), workers=0)


def test_training_keys_may_be_set_for_methods_without_gradient():
    plain, told = (compose(["method=itq", *words]) for words in ([], ["runner.epochs=7"]))
    assert plain.run_name == told.run_name and told.resolved["runner"]["epochs"] is None


OWN_METHOD = """
import dataclasses
from common.registry import LOSSES
from models.base import HashLoss, Terms

@LOSSES.register("sweep_test_loss", needs=("image_code",))
class Mine(HashLoss):
    "Codes to +-1."
    def forward(self, outputs, batch, progress):
        return Terms(quant=(outputs.image_code.abs() - 1).pow(2).mean())
"""


@pytest.fixture
def own_method(tmp_path):
    """Return the YAML of a method whose loss lies in a plugin beside it."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "own.py").write_text(OWN_METHOD)
    file = tmp_path / "mine" / "own.yaml"
    file.write_text(
        "plugins: [own.py]\nmodel: {name: image_hash}\nloss: {name: sweep_test_loss}\n"
        "optim: {name: adam, lr: 1.0e-3}\nbackbone: pixels\n"
    )
    with registered_as_before():
        yield file


def test_a_sweep_keeps_the_plugins_of_a_method_s_file(own_method, tmp_path):
    grid = {"method": [str(own_method), "csq"], "dataset": ["folder"]}
    plugin = str(own_method.with_suffix(".py"))
    runs = expanded(write_sweep(tmp_path, grid=grid))
    assert [r.method for r in runs] == ["own", "csq"]
    assert [files_of(r) for r in runs] == [[plugin], []]
    named = expanded(write_sweep(tmp_path, grid=grid, plugins=["mine/own.py"]))  # beside the sweep
    assert [files_of(r) for r in named] == [[plugin]] * 2
    assert named[0].run_name == runs[0].run_name
    told = expanded(write_sweep(tmp_path, grid=grid, set={"plugins": [plugin]}))
    assert [r.run_name for r in told] == [r.run_name for r in named]


def test_workers_run_an_own_method_whose_file_is_gone(own_method, pictures, tmp_path, capfd):
    words = [*pictures, *QUICK]
    content = {"output": str(tmp_path / "out"), "grid": {"method": [str(own_method)]}}
    file = write_sweep(tmp_path, words, **content)
    configs = expanded(file)
    own_method.unlink()
    (ended,) = run_sweep(configs, workers=2)
    assert ended.state == "done", ended.reason
    folder = tmp_path / "out" / configs[0].run_name
    assert main.main(["evaluate", str(folder)]) == 0
    shown = ["--trust", "--images", str(configs[0].dataset.config.root)]
    assert main.main(["encode", str(folder), *shown, "--out", str(tmp_path / "codes.h5")]) == 0
    assert main.main(["train", "--config", str(folder / "config.yaml"), "--trust"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == str(folder)
