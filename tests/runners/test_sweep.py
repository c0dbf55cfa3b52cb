"""Sweeps: which runs a file asks for, and that all of them end, whatever becomes of one."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import yaml

import main
from common.config import compose
from common.run_store import RunFolder
from runners.sweep import expand, read_sweep, run_sweep
from tests.helpers import PIXELS, QUICK, outcome

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
    times = {path: path.stat().st_mtime_ns for path in out.rglob("metrics.json")}
    assert main.main(["sweep", str(file)]) == 0
    assert "3 runs: 3 done before, 0 to do" in capfd.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("metrics.json")} == times
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

    with pytest.raises(UserError, match="workers=0 is not accepted; at least 1"):
        run_sweep(expanded(small[0]), workers=0)


def test_training_keys_may_be_set_for_methods_without_gradient():
    plain, told = (compose(["method=itq", *words]) for words in ([], ["runner.epochs=7"]))
    assert plain.run_name == told.run_name and told.resolved["runner"]["epochs"] is None
