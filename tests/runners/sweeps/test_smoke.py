"""A sweep in miniature: what it tries, what it replaces, and that it leaves nothing behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

import main
from common.storage.run_folder import SMOKE
from runners.results.leaderboard import find_runs
from runners.sweeps import smoke
from tests.helpers import QUICK, run
from tests.runners.sweeps.test_sweep import write_sweep
from utils.errors import UserError

TRAIN = {key: yaml.safe_load(value) for key, value in (word.split("=") for word in QUICK)}
TRAIN["optim.lr"] = 1e-3


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


@pytest.fixture
def tiny(tmp_path: Path, captioned: list[str]) -> tuple[Path, Path]:
    """A sweep of two methods and two seeds on toy pictures, and where it would write."""
    grid = {"method": ["dcmht", "itq"], "dataset": ["folder"], "seed": [0, 1]}
    output = tmp_path / "out" / "runs"
    return write_sweep(tmp_path, captioned, grid=grid, set=TRAIN, output=str(output)), output


def test_every_distinct_run_passes_and_nothing_is_left(tiny, toy_root, capsys):
    file, output = tiny
    cached = files_below(toy_root / "cache")
    assert main.main(["sweep", str(file), "--smoke"]) == 0
    out = capsys.readouterr().out
    assert out.count("passed") == 3 and "2 of 2 runs passed" in out  # two rows and the sentence
    assert "2 that differ in their seed only were left out" in out and "accuracy" in out
    assert not output.exists() and not output.parent.exists()
    assert files_below(toy_root / "cache") == cached


def test_every_seed_is_tried_when_asked_for(tiny, capsys):
    assert main.main(["sweep", str(tiny[0]), "--smoke", "--every-seed"]) == 0
    assert "4 of 4 runs passed" in capsys.readouterr().out


def test_a_run_afterwards_is_what_it_is_without_a_smoke(tiny, captioned, tmp_path):
    words = ["method=dcmht", *captioned, *QUICK]
    before = run(*words, f"output={tmp_path / 'a'}").metrics()
    assert main.main(["sweep", str(tiny[0]), "--smoke"]) == 0
    after = run(*words, f"output={tmp_path / 'b'}").metrics()
    assert before["directions"] == after["directions"]
    assert before["split_hash"] == after["split_hash"]


BROKEN = '''
"""A loss with a fault."""
import dataclasses
from common.registry import LOSSES
from models.base import HashLoss

@LOSSES.register("faulty", needs=("image_code",))
class Faulty(HashLoss):
    """A fault."""
    def __init__(self, config, problem):
        super().__init__()
    def forward(self, outputs, batch, progress):
        raise KeyError("not there")
'''


def test_a_fault_fails_its_run_alone(tmp_path, pictures, capsys):
    plugin = tmp_path / "faulty.py"
    plugin.write_text(BROKEN)
    sweep = {
        "grid": {"method": ["csq", "lsh"], "dataset": ["folder"]},
        "set": TRAIN, "plugins": [str(plugin)], "output": str(tmp_path / "runs"),
        "overrides": [{"where": {"method": "csq"}, "set": {"loss.name": "faulty"}}],
    }  # fmt: skip
    file = write_sweep(tmp_path, pictures, **sweep)
    assert main.main(["sweep", str(file), "--smoke"]) == 2
    out = capsys.readouterr().out
    assert "failed: csq folder 16 bits: Plugin" in out and "raised KeyError: 'not there'" in out
    assert "1 of 2 runs passed; failures: 1 to mend" in out


def test_what_the_user_can_mend_is_exit_code_2(tiny, tmp_path, capsys):
    words = [f"dataset.root={tmp_path / 'nowhere'}"]
    assert main.main(["sweep", str(tiny[0]), "--smoke", *words]) == 2
    out = capsys.readouterr().out
    assert "0 of 2 runs passed; failures: 2 to mend" in out and "nowhere" in out


@pytest.mark.parametrize(
    "words", [["--launcher", "ray"], ["--workers", "2"], ["--dry-run"], ["--retry-failed"]]
)
def test_options_that_contradict_a_smoke(tiny, words, capsys):
    assert main.main(["sweep", str(tiny[0]), "--smoke", *words]) == 2
    assert "one by one in this process; leave --" in capsys.readouterr().err


def test_every_seed_alone(tiny, capsys):
    assert main.main(["sweep", str(tiny[0]), "--every-seed"]) == 2
    assert "belongs to --smoke" in capsys.readouterr().err


def test_a_full_disk_is_one_sentence(tiny, monkeypatch, capsys):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("runners.base.write_codes", full)
    assert main.main(["sweep", str(tiny[0]), "--smoke"]) == 2
    captured = capsys.readouterr()
    assert "is full; free some space" in captured.err and "Traceback" not in captured.err
    assert not tiny[1].exists()


def test_ctrl_c_leaves_nothing(tiny, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("runners.base.write_codes", interrupted)
    assert main.main(["sweep", str(tiny[0]), "--smoke"]) == 130
    assert not tiny[1].exists()


def test_no_report_and_no_search_takes_a_run_in_miniature(tiny, monkeypatch, capsys):
    file, output = tiny
    with monkeypatch.context() as patch:  # as if the process had been killed
        patch.setattr(smoke.shutil, "rmtree", lambda *_, **__: None)
        assert main.main(["sweep", str(file), "--smoke"]) == 0
    left = next(output.glob(f"{SMOKE}*/runs/*"))
    with pytest.raises(UserError, match="no finished run"):
        find_runs(output)
    for command in (["evaluate", str(left)], ["search", str(left), "--query", "a"]):
        assert main.main(command) == 2
        assert "run in miniature" in capsys.readouterr().err
    owner = left.parents[1] / "owner.json"
    owner.write_text(owner.read_text().replace('"pid": ', '"pid": 9999'))
    assert main.main(["sweep", str(file), "--smoke"]) == 0
    assert not left.exists()  # an abandoned folder goes with the next smoke


def prepared(tmp_path: Path, **content: object) -> Path:
    words = ["backbone=pixels", "backbone.size=8", "backbone.text_width=32"]
    return write_sweep(tmp_path, words, output=str(tmp_path / "runs"), **content)


@pytest.mark.parametrize(
    ("dataset", "classes"), [("coco", 80), ("flickr25k", 24), ("cifar100", 100), ("cub", 200)]
)
def test_a_missing_dataset_has_a_stand_in_of_its_kind(
    dataset, classes, tmp_path, monkeypatch, capsys
):
    shapes = []
    real = smoke.miniature
    monkeypatch.setattr(
        smoke, "miniature", lambda data, sizes: shapes.append(data) or real(data, sizes)
    )
    grid = {"method": ["lsh"], "dataset": [dataset], "bits": [8]}
    file = prepared(tmp_path, grid=grid, set={"dataset.root": str(tmp_path / "none")})
    assert main.main(["sweep", str(file), "--smoke"]) == 0
    captured = capsys.readouterr()
    assert "drawn" in captured.out
    data = shapes[0]
    assert data.labels.shape[1] == classes == len(data.class_names)
    assert {"coco": 5, "flickr25k": 1}.get(dataset, 0) == len((data.texts or [()])[0])
    assert (data.attributes is not None) == (dataset == "cub")
    sides = {data.images.decode(row).shape[:2] for row in range(6)}
    assert sides == {(32, 32)} if dataset == "cifar100" else len(sides) > 3


def test_generated_pictures_that_are_missing_are_drawn(tmp_path, capsys):
    grid = {"method": ["pzsh"], "dataset": ["cub"], "bits": [8]}
    settings = {"data.generated": str(tmp_path / "no"), "dataset.root": str(tmp_path / "none"),
                "model.freeze_img": True, **TRAIN}  # fmt: skip
    file = prepared(tmp_path, grid=grid, set=settings)
    assert main.main(["sweep", str(file), "--smoke"]) == 0, capsys.readouterr().out
    assert "1 of 1 runs passed" in capsys.readouterr().out


def test_random_weights_only_where_the_own_are_missing(tmp_path, pictures, capsys):
    clip = "models/backbones/clip_mini"
    sweep = {"grid": {"method": ["csq"], "dataset": ["folder"], "bits": [8, 16]}, "set": TRAIN}
    words = [word for word in pictures if not word.startswith(("backbone", "bits"))]
    file = write_sweep(tmp_path, words, **sweep, output=str(tmp_path / "runs"))
    own = ["backbone=clip_mini", f"backbone.weights={clip}.safetensors", "backbone.freeze=none"]
    assert main.main(["sweep", str(file), "--smoke", *own]) == 0
    assert capsys.readouterr().out.count("clip_mini (real)") == 2
    own[1] = f"backbone.weights={tmp_path}/nowhere.safetensors"
    assert main.main(["sweep", str(file), "--smoke", *own]) == 0
    assert capsys.readouterr().out.count("clip_mini (random)") == 2
    own[1] = f"backbone.weights={tmp_path}/other.safetensors"
    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    assert main.main(["sweep", str(file), "--smoke", *own]) == 2  # there, and does not fit
    assert "does not fit" in capsys.readouterr().out


def test_an_encoder_is_built_once_and_each_run_gets_it_untrained(tmp_path, pictures, monkeypatch):
    built = []
    real = smoke.build_entry
    monkeypatch.setattr(smoke, "build_entry", lambda *a: built.append(a) or real(*a))
    words = [word for word in pictures if not word.startswith(("backbone", "bits"))]
    file = write_sweep(
        tmp_path, [*words, "backbone=clip_mini", "backbone.freeze=none"],
        grid={"method": ["csq"], "dataset": ["folder"], "bits": [8, 16]},
        set={**TRAIN, "optim.lr": 1.0, "optim.groups.backbone.lr": 1.0},
        output=str(tmp_path / "runs"),
    )  # fmt: skip
    assert main.main(["sweep", str(file), "--smoke"]) in (0, 1)  # such a rate may break the loss
    assert len(built) == 1
