"""Training: the same again, resumed after any kill, stopped at NaN, split over processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import main
from common.config.run_config import compose
from common.storage import checkpoint
from runners.base import run_config
from runners.inputs import loading
from runners.training.history import FILE as HISTORY
from runners.training.history import read_history
from tests.helpers import QUICK, ROOT, outcome, run
from utils.errors import UserError

HASHNET = ("method=hashnet", *QUICK)
DSPH = ("method=dsph", *QUICK, "runner.epochs=4")  # dropout, two optimisers, drawn captions
TINY_VISION = {"image_size": 16, "patch_size": 8, "width": 32, "head_width": 16, "layers": 1}
TINY_TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
PLUGIN = '''"""A loss of one's own, in a file of one's own."""

import dataclasses

from common.registry import LOSSES
from models.base import HashLoss, Terms


@dataclasses.dataclass(frozen=True)
class PullConfig:
    """Keys of ``loss`` with ``name: {name}``."""

    weight: float = 1.0


@LOSSES.register("{name}", config=PullConfig, needs=("image_code",))
class PullLoss(HashLoss):
    """Pull codes of rows that share a label together."""

    def forward(self, outputs, batch, progress):
        """Return ``pull`` and ``push``."""
        code = outputs.image_code.tanh()
        same = batch.label @ batch.label.T
        apart = code @ code.T / code.shape[1]
        pull = self.config.weight * ((1 - apart) * same).mean()
        return Terms(pull=pull, push=(apart * (1 - same)).mean() + ({bad}))
'''


def history_of(folder) -> list[dict]:
    """Return what each epoch came to, without its time."""
    lines = [json.loads(line) for line in (folder.path / HISTORY).read_text().splitlines()]
    assert all(line.pop("seconds") > 0 for line in lines)
    return lines


def write_plugin(folder: Path, name: str, bad: str = "0.0") -> Path:
    file = folder / f"{name}.py"
    file.write_text(PLUGIN.format(name=name, bad=bad))
    return file


@pytest.mark.parametrize("method", ["dsph", "cosine_proxy", "dcmht_attention"])
def test_the_same_command_gives_the_same_numbers(method, captioned, tmp_path):
    words = [*DSPH, f"method={method}", *captioned]
    first = outcome(run(*words, f"output={tmp_path / 'a'}"))
    torch.rand(3)  # whatever was drawn before does not matter
    assert outcome(run(*words, f"output={tmp_path / 'b'}")) == first
    other = outcome(run(*words, f"output={tmp_path / 'a'}", "seed=1"))
    assert other["database image"] != first["database image"]


def test_an_encoder_kept_from_an_earlier_run_changes_nothing(pictures, tmp_path):
    data = [word for word in pictures if not word.startswith("backbone")]
    words = [*HASHNET, *data, "backbone=clip_mini"]
    loading._backbones.clear()
    loaded = outcome(run(*words, f"output={tmp_path / 'a'}"))
    assert loading._backbones  # a frozen one is kept
    assert outcome(run(*words, f"output={tmp_path / 'b'}")) == loaded


def test_the_log_of_a_run_announces_random_weights(pictures, tmp_path):
    towers = {"embed_dim": 24, "vision_cfg": TINY_VISION, "text_cfg": TINY_TEXT}
    (tmp_path / "tiny.json").write_text(json.dumps(towers))
    data = [word for word in pictures if not word.startswith("backbone")]
    folder = run(
        *HASHNET, *data, "backbone=open_clip", f"backbone.model={tmp_path / 'tiny.json'}",
        "backbone.weights=random", f"output={tmp_path}",
    )  # fmt: skip
    assert "starts from random weights" in (folder.path / "log.txt").read_text()


PER_DIRECTION = ("eval.epoch_per=direction", "eval.measure=[mith@all]")
PER_CUT = ("eval.epoch_per=cut", "eval.at=[all,1,5]", "eval.measure=[fire@3]")


@pytest.mark.parametrize("per", [(), PER_DIRECTION, PER_CUT, (*PER_CUT, "eval.select=val")])
@pytest.mark.parametrize("stop", [1, 3])
def test_an_interrupted_run_ends_with_the_same_numbers(stop, per, captioned, tmp_path, monkeypatch):
    words = [*DSPH, *captioned, "eval.select=query", *per]
    whole = run(*words, f"output={tmp_path / 'whole'}")
    save = checkpoint.save

    def stopping(folder, modules, optimizers=(), rng=None, state=None):
        save(folder, modules, optimizers, rng, state)
        if state and state.get("epoch") == stop:
            raise KeyboardInterrupt

    torn = [*words, f"output={tmp_path / 'torn'}"]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save", stopping)
        run(*torn)
    folder = tmp_path / "torn" / whole.path.name
    assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
    resumed = run(*torn)
    assert outcome(resumed) == outcome(whole)
    assert history_of(resumed) == history_of(whole)
    assert f"resumed after epoch {stop} of 4" in (resumed.path / "log.txt").read_text()
    assert resumed.status()["state"] == "done" and resumed.status()["error"] is None


def test_a_killed_process_resumes_with_the_same_numbers(captioned, tmp_path):
    words = [*DSPH, *captioned, "runner.epochs=60", "eval.every=20"]
    killed = [*words, f"output={tmp_path / 'killed'}"]
    process = subprocess.Popen(
        [sys.executable, "main.py", "train", *killed], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    folder = tmp_path / "killed" / compose(killed).run_name
    limit = time.monotonic() + 60
    while not (folder / "checkpoints" / "last").is_dir():
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert json.loads((folder / "status.json").read_text())["state"] == "running"
    resumed = run(*killed)
    assert "resumed after epoch" in (folder / "log.txt").read_text()
    whole = run(*words, f"output={tmp_path / 'whole'}")
    assert outcome(resumed) == outcome(whole)
    assert history_of(resumed) == history_of(whole)


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (("last",), "resumed after epoch 2 of 4"),
        (("last", "previous"), "epoch 1/4"),
        (("best",), "epoch 1/4"),
    ],
)
def test_a_damaged_checkpoint_costs_epochs_not_the_run(
    damaged, message, captioned, tmp_path, monkeypatch
):
    words = [*DSPH, *captioned, "eval.select=query"]
    whole = run(*words, f"output={tmp_path / 'whole'}")
    save = checkpoint.save

    def stopping(folder, modules, optimizers=(), rng=None, state=None):
        save(folder, modules, optimizers, rng, state)
        if state and state.get("epoch") == 3:
            raise KeyboardInterrupt

    torn = [*words, f"output={tmp_path / 'torn'}"]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save", stopping)
        run(*torn)
    folder = tmp_path / "torn" / whole.path.name
    for name in damaged:
        file = folder / "checkpoints" / name / "model.safetensors"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 255
        file.write_bytes(content)
    before = (folder / "log.txt").read_text()
    resumed = run(*torn)
    log = (folder / "log.txt").read_text().removeprefix(before)
    assert "is damaged: its checksum differs. Training goes on from before it." in log
    assert message in log
    assert outcome(resumed) == outcome(whole)
    assert history_of(resumed) == history_of(whole)


def test_what_is_done_is_not_done_again(pictures, tmp_path):
    words = [*HASHNET, *pictures, f"output={tmp_path}"]
    before = run(*words).metrics_file.stat().st_mtime_ns
    assert run(*words).metrics_file.stat().st_mtime_ns == before


def test_a_nan_loss_stops_the_run_and_is_named(pictures, tmp_path):
    file = write_plugin(tmp_path, "nan_at_step_4", "float('nan') if progress.step == 4 else 0.0")
    words = [
        *HASHNET,
        *pictures,
        "loss.name=nan_at_step_4",
        f"plugins=[{file}]",
        "eval.select=last",
    ]
    config = compose([*words, f"output={tmp_path / 'out'}"])
    message = "Loss term 'push' became nan in epoch 2, step 4; lower the learning rate"
    with pytest.raises(UserError, match=message):
        run_config(config)
    folder = tmp_path / "out" / config.run_name
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "failed" and message in status["error"]
    assert message in (folder / "log.txt").read_text()
    assert not (folder / "metrics.json").exists() and not (folder / "codes.h5").exists()


def test_a_plugin_from_outside_trains(pictures, tmp_path, capfd):
    file = write_plugin(tmp_path, "my_pull")
    assert len(file.read_text().splitlines()) <= 40
    words = [*HASHNET, *pictures, f"plugins=[{file}]", "loss.name=my_pull", "loss.weight=2"]
    assert main.main(["train", *words, f"output={tmp_path / 'out'}"]) == 0
    folder = Path(capfd.readouterr().out.splitlines()[-1])
    assert "name: my_pull" in (folder / "config.yaml").read_text()
    assert json.loads((folder / "metrics.json").read_text())["directions"]["i2i"]


def trained(*words: str) -> dict[str, torch.Tensor]:
    folder = run(*words, "eval.select=last")
    return load_file(folder.checkpoints / "last" / "model.safetensors")


def test_accumulated_gradients_are_those_of_the_big_batch(pictures, tmp_path):
    # CSQ's loss is a mean over rows, so two batches of 16 weigh as one of 32; 39 rows = 32 + 7
    words = [
        "method=csq",
        *QUICK,
        *pictures,
        "optim.name=sgd",
        "optim.lr=0.5",
        f"output={tmp_path}",
    ]
    big = trained(*words, "runner.batch_size=32")
    small = trained(*words, "runner.batch_size=16", "runner.accumulate=2")
    other = trained(*words, "runner.batch_size=16")
    assert big.keys() == small.keys()
    for name, value in big.items():
        torch.testing.assert_close(small[name], value, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(other[name], value, rtol=1e-3)


def test_clipping_limits_the_step(pictures, tmp_path):
    words = [
        "method=csq",
        *QUICK,
        *pictures,
        "optim.name=sgd",
        "runner.epochs=1",
        f"output={tmp_path}",
    ]
    words += ["runner.batch_size=64", "optim.lr=1"]
    start = trained(*words, "optim.lr=0")
    plain, clipped = trained(*words), trained(*words, "runner.clip_norm=1e-3")

    def length(end):
        return sum((end[name] - start[name]).pow(2).sum() for name in start).sqrt().item()

    assert length(plain) > 1e-3
    assert length(clipped) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("select", ["last", "val", "query"])
def test_the_choice_of_the_epoch_is_recorded(select, captioned, tmp_path):
    metrics = run(*DSPH, *captioned, f"eval.select={select}", f"output={tmp_path}").metrics()
    selected, rows = metrics["protocol"]["selected"], metrics["protocol"]["rows"]
    assert selected["on"] == select
    assert rows["val"] == (4 if select == "val" else 0)  # a tenth of the training rows
    if select == "last":
        assert (selected["epoch"], selected["score"]) == (4, None)
        return
    assert 1 <= selected["epoch"] <= 4
    values = [report["map"]["all"]["expected"] for report in metrics["directions"].values()]
    if select == "query":  # what was selected on is what is reported
        assert selected["score"] == pytest.approx(sum(values) / len(values), abs=1e-12)


@pytest.mark.parametrize("select", ["last", "val", "query"])
def test_the_history_has_every_epoch(select, captioned, tmp_path):
    words = [
        *DSPH,
        *captioned,
        f"eval.select={select}",
        "eval.every=3",
        "optim.groups.proxies.lr=0.5",
    ]
    folder = run(*words, "schedule.name=step", "schedule.every=2", f"output={tmp_path}")
    records = read_history(folder.path)
    assert [record.epoch for record in records] == [1, 2, 3, 4]
    log = (folder.path / "log.txt").read_text()
    for record in records:
        terms = {name: value for name, value in record.loss.items() if name != "total"}
        assert len(terms) > 1 and record.loss["total"] == sum(terms.values())
        assert f"epoch {record.epoch}/4  loss {record.loss['total']:.5f}  " in log
    assert [r.lr["proxies"] for r in records] == [0.5] * 4  # a schedule of its own
    assert [r.lr["head"] for r in records] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])
    measured = [r.epoch for r in records if r.measured is not None]
    assert measured == ([] if select == "last" else [3, 4])
    selected = folder.metrics()["protocol"]["selected"]
    for record in records[2:] if measured else []:
        assert record.measured.on == select and set(record.measured.map) == {"i2t", "t2i"}
        assert record.measured.score == pytest.approx(sum(record.measured.map.values()) / 2)
        if record.epoch == selected["epoch"]:
            assert record.measured.score == selected["score"]


@pytest.mark.parametrize("stop", [2, 4])
def test_epochs_without_a_checkpoint_are_recorded_once(stop, captioned, tmp_path, monkeypatch):
    words = [*DSPH, *captioned, "runner.checkpoint_every=2"]
    whole = run(*words, f"output={tmp_path / 'whole'}")
    save = checkpoint.save

    def stopping(folder, modules, optimizers=(), rng=None, state=None):
        if state and state.get("epoch") == stop:
            with open(folder.parents[1] / HISTORY, "a") as stream:
                stream.write('{"epoch": 9, "lo')
            raise KeyboardInterrupt  # recorded, but no checkpoint
        save(folder, modules, optimizers, rng, state)

    torn = [*words, f"output={tmp_path / 'torn'}"]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save", stopping)
        run(*torn)
    assert len(read_history(tmp_path / "torn" / whole.path.name)) == stop
    assert history_of(run(*torn)) == history_of(whole)


def test_evaluating_seldom_still_evaluates_the_last_epoch(captioned, tmp_path):
    words = [*DSPH, *captioned, "eval.every=100", "runner.checkpoint_every=3", f"output={tmp_path}"]
    folder = run(*words)
    assert folder.metrics()["protocol"]["selected"]["epoch"] == 4
    assert checkpoint.read_state(folder.checkpoints / "last")["epoch"] == 4


def test_the_run_folder_is_complete(captioned, tmp_path):
    folder = run(*DSPH, *captioned, "runner.tensorboard=true", f"output={tmp_path}")
    names = {path.name for path in folder.path.iterdir()} - {".claim"}
    assert names == {
        "config.yaml", "status.json", "metrics.json", "codes.h5", "checkpoints", "tensorboard",
        "history.jsonl", "log.txt", "split.npz", "query_ap.npz",
    }  # fmt: skip
    assert {path.name for path in folder.checkpoints.iterdir()} == {"last", "best"}
    assert list((folder.path / "tensorboard").glob("events*"))
    assert set(folder.status()) >= {
        "state",
        "started",
        "finished",
        "host",
        "versions",
        "git_revision",
    }
    metrics = folder.metrics()
    timing = dict(metrics["timing"])
    of_train = timing.pop("of_train")
    assert list(timing) == ["setup_s", "inputs_s", "train_s", "encode_s", "time_s", "write_s"]
    assert set(of_train) == {"fit_s", "data_s", "step_s", "select_s", "board_s", "write_s"}
    assert min(timing.values()) > 0 and min(of_train.values()) >= 0
    assert sum(of_train.values()) <= timing["train_s"]
    assert sum(timing.values()) <= folder.status()["seconds"]
    assert metrics["memory"]["peak_mb"] > 50
    assert compose([], folder.config_file).run_name == folder.path.name


@pytest.mark.parametrize("word", ["eval.at=[5]", "runner.precision=bf16", "data.feature_cache=off"])
def test_settings_that_few_use(word, captioned, tmp_path):
    folder = run(*DSPH, *captioned, word, f"output={tmp_path}")
    assert folder.is_done


@pytest.mark.parametrize("bits", [1, 48])
def test_other_code_lengths(bits, pictures, tmp_path):
    folder = run(*HASHNET, *pictures, f"bits={bits}", f"output={tmp_path}")
    assert len(outcome(folder)["query image"][0]) == bits


def test_two_processes_compute_what_one_does(pictures, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = [*HASHNET, *pictures, "optim.name=sgd", "optim.lr=0.1"]
    launch = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]
    one = run(*words, f"output={tmp_path / 'one'}")
    command = [sys.executable, *launch, "main.py", "train", *words, f"output={tmp_path / 'two'}"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "two" / one.path.name
    assert done.stdout.splitlines()[-1] == str(folder)
    assert done.stdout.count(str(folder)) == 1, "only the first process reports"
    two = type(one)(folder)
    assert outcome(two) == outcome(one)
    assert [record.epoch for record in read_history(folder)] == [1, 2, 3]
    single, double = (load_file(f.checkpoints / "last" / "model.safetensors") for f in (one, two))
    for name, value in single.items():
        torch.testing.assert_close(double[name], value, rtol=1e-4, atol=1e-6)
