"""Stages: built once, reused by every run that needs the same, identified by content."""

import dataclasses
import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch

from common.config.run_config import compose
from runners.experiment import Experiment
from runners.staged import Stages, array_digest, data_identity, settings_identity


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "stages"


def stages(tmp_path, run="one", tensorboard=False):
    return Stages(tmp_path / "runs" / run, tensorboard)


class Builder:
    """Writes a file and counts its calls."""

    def __init__(self, text="made", **report):
        self.text, self.report, self.calls = text, report, 0

    def __call__(self, folder):
        self.calls += 1
        (folder / "file.txt").write_text(self.text)
        return self.report


def test_built_once_then_reused_by_another_run(tmp_path, root):
    build = Builder(score=0.5)
    first = stages(tmp_path).run("network", {"bits": 512}, build)
    again = stages(tmp_path, "two").run("network", {"bits": 512}, build)
    assert build.calls == 1 and (first.reused, again.reused) == (False, True)
    assert first.folder == again.folder == root / f"network-{first.key}"
    assert (again.folder / "file.txt").read_text() == "made"
    assert again.run == "one" and again.report == {"score": 0.5}
    record = json.loads((first.folder / "stage.json").read_text())
    assert record["depends"] == {"bits": 512} and record["seconds"] == again.seconds
    assert sorted(path.name for path in root.iterdir()) == sorted(
        [first.folder.name, f"{first.folder.name}.lock", f"{first.folder.name}.sums"]
    )


def test_the_key_is_the_name_and_all_it_depends_on(tmp_path):
    mine = stages(tmp_path)
    depends = {"labels": "abc", "settings": {"lr": 0.1, "epochs": 3}}
    same = {"settings": {"epochs": 3, "lr": 0.1}, "labels": "abc"}
    key = mine.run("a", depends, Builder()).key
    assert mine.run("a", same, Builder()).reused
    others = [("b", depends), ("a", {**depends, "labels": "abd"}), ("a", {})]
    keys = {mine.run(name, value, Builder()).key for name, value in others}
    assert len(keys | {key}) == 4
    second = mine.run("second", {"first": key}, Builder())
    assert mine.run("second", {"first": min(keys)}, Builder()).key != second.key
    assert list(mine.done) == ["a", "b", "second"]


def test_a_failure_leaves_no_stage_and_the_next_goes_on(tmp_path, root):
    def fail(folder):
        (folder / "half.txt").write_text("half")
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        stages(tmp_path).run("network", {}, fail)

    def go_on(folder):
        (folder / "whole.txt").write_text((folder / "half.txt").read_text() + " and whole")
        return {}

    stage = stages(tmp_path).run("network", {}, go_on)
    assert not stage.reused and (stage.folder / "whole.txt").read_text() == "half and whole"
    assert not list(root.glob("*.part"))


def process(function, *arguments):
    """Return a started process that calls ``function``."""
    started = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    started.start()
    return started


def test_a_killed_builder_leaves_no_stage_and_releases_the_lock(tmp_path):
    def build(folder):
        (folder / "half.txt").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    killed = process(stages(tmp_path).run, "network", {}, build)
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    stage = stages(tmp_path).run("network", {}, Builder())
    assert not stage.reused
    assert {path.name for path in stage.folder.iterdir()} == {"half.txt", "file.txt", "stage.json"}


def test_two_processes_build_it_once(tmp_path):
    def build(folder):
        time.sleep(0.2)
        return {"pid": os.getpid()}

    def make(run):
        stage = stages(tmp_path, run).run("network", {}, build)
        (tmp_path / run).write_text(f"{int(stage.report['pid'])} {stage.reused}")

    for started in [process(make, run) for run in ("one", "two")]:
        started.join()
    results = [(tmp_path / run).read_text().split() for run in ("one", "two")]
    assert results[0][0] == results[1][0] and sorted(reused for _, reused in results) == [
        "False",
        "True",
    ]


def test_each_run_shows_its_stages_in_its_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    build = Builder(loss=[3.0, 2.0], centre_bits=1.0, nothing=[])
    for run in ("one", "two"):
        stages(tmp_path, run, tensorboard=True).run("transform_16", {}, build)
        events = EventAccumulator(str(tmp_path / "runs" / run / "tensorboard"))
        events.Reload()
        curve = [(e.step, e.value) for e in events.Scalars("stage/transform_16/loss")]
        assert curve == [(1, 3.0), (2, 2.0)]
        assert [e.value for e in events.Scalars("stage/transform_16/centre_bits")] == [1.0]
        assert len(events.Scalars("stage/transform_16/seconds")) == 1


@pytest.mark.parametrize("name", ["stage.json", "file.txt"])
def test_a_damaged_stage_is_built_again(tmp_path, caplog, name):
    stage = stages(tmp_path).run("network", {}, Builder())
    (stage.folder / name).write_text("{")
    build = Builder()
    assert not stages(tmp_path).run("network", {}, build).reused and build.calls == 1
    assert "is damaged" in caplog.text and name in caplog.text


def test_arrays_by_type_shape_and_values():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    same = (torch.from_numpy(values), values.copy(), np.asfortranarray(values))
    assert {array_digest(v) for v in same} == {array_digest(values)}
    others = (values.astype(np.float64), values.reshape(3, 2), values + 1, values[:1])
    assert len({array_digest(v) for v in (values, *others)}) == 5


def test_settings_leave_out_what_decides_nothing(pictures, tmp_path):
    def identity(*words):
        return settings_identity(compose(["method=csq", *pictures, *words]))

    first = identity()
    for word in (f"output={tmp_path}", "data.workers=1", "runner.threads=2", "runner.device=cpu"):
        assert identity(word) == first
    for word in ("seed=1", "loss.lambda_quant=0.1", "optim.lr=1", "runner.epochs=2"):
        assert identity(word) != first
    json.dumps(first)


def test_data_by_content(pictures):
    experiment = Experiment.build(compose(["method=csq", *pictures]))
    first = data_identity(experiment)
    assert first == data_identity(Experiment.build(compose(["method=csq", *pictures, "bits=8"])))
    labels = experiment.dataset.labels.copy()
    labels[0] = labels[-1]
    relabelled = dataclasses.replace(experiment.dataset, labels=labels)
    changed = data_identity(dataclasses.replace(experiment, dataset=relabelled))
    assert {k for k in first if changed[k] != first[k]} == {"labels"}
    split = Experiment.build(compose(["method=csq", *pictures, "dataset.split.seed=5"]))
    assert {k for k, v in data_identity(split).items() if v != first[k]} == {"split"}
