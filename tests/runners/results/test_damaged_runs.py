"""One damaged run among whole ones: the report goes on and names it, sweep and train redo it."""

from __future__ import annotations

import copy
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import main
from common.storage.run_folder import RunFolder
from runners.report.page import report_data
from runners.report.study import Study
from runners.results.leaderboard import collect, find_runs, summarize
from runners.results.renderers import print_tables
from tests.helpers import QUICK, outcome, run

FILES = (
    "metrics.json", "codes.h5", "config.yaml", "status.json", "history.jsonl", "query_ap.npz",
    "split.npz",
)  # fmt: skip


def missing(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def garbage(file: Path) -> None:
    file.write_bytes(b"\x89\xff\x00{[" * (file.stat().st_size // 5))


def half_zeros(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


KINDS = (missing, empty, half, garbage, half_zeros, a_folder)


@pytest.fixture(scope="module")
def both(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two runs that differ in their seeds."""
    output = tmp_path_factory.mktemp("both")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HASHING_CACHE", str(toy_root / "cache"))
        for seed in (0, 1):
            run(*words(toy_root, output / "runs", seed))
    return output / "runs"


def words(toy_root: Path, output: Path, seed: int) -> list[str]:
    data = toy_root / "captioned"
    return [
        "method=dcmht", "dataset=folder", f"dataset.root={data}", "dataset.csv=list.csv",
        "backbone=pixels", "backbone.size=8", "backbone.text_width=32", "bits=16", *QUICK,
        f"seed={seed}", f"output={output}",
    ]  # fmt: skip


@pytest.fixture
def runs(both: Path, tmp_path: Path, toy_root: Path, monkeypatch) -> list[Path]:
    """Return copies of both: the first is to be damaged."""
    monkeypatch.setenv("HASHING_CACHE", str(toy_root / "cache"))
    shutil.copytree(both, tmp_path / "runs")
    return sorted(p for p in (tmp_path / "runs").iterdir() if p.name[0] != ".")


def of_an_earlier_version(folder: Path) -> None:
    """Take the checksums of the files out of a run."""
    status = json.loads((folder / "status.json").read_text())
    del status["files"]
    (folder / "status.json").write_text(json.dumps(status))


def report(folder: Path, capsys, *options: str) -> tuple[str, str]:
    """Return what ``report`` prints; it must end well."""
    capsys.readouterr()
    assert main.main(["report", str(folder.parent), *options]) == 0
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return printed.out, printed.err


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_report_goes_on_and_names_it(runs, capsys, name, kind):
    kind(runs[0] / name)
    out, err = report(runs[0], capsys)
    assert "dcmht" in out
    (line,) = [line for line in err.splitlines() if str(runs[0]) in line]
    assert line.startswith("left out: ") and name in line
    assert str(runs[1]) not in err


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_of_an_earlier_version_too(runs, capsys, tmp_path, name, kind):
    """Without checksums the numbers, the codes and the settings are looked at."""
    of_an_earlier_version(runs[0])
    kind(runs[0] / name)
    out, err = report(runs[0], capsys, "--html", str(tmp_path / "r.html"), "--queries", "1")
    named = name in ("metrics.json", "config.yaml", "status.json")
    if name == "codes.h5" and kind is not half_zeros:
        named = True
    if named and not (name == "config.yaml" and kind is half):  # such a half may be YAML
        assert f"left out: '{runs[0]}'" in err and name in err
    assert "dcmht" in out


WRONG = ("a word", None, [], {}, -1, math.nan, 10**400, True)


def leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the places in metrics.json, of lists and of equal directions only the first."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, part in value.items():
            if key != "t2i":
                found += leaves(part, (*path, key))
    return found


@pytest.mark.parametrize("number", range(len(WRONG)), ids=lambda i: repr(WRONG[i])[:8])
def test_every_entry_of_metrics_may_be_of_another_type(runs, caplog, tmp_path, number):
    """Named, or used without a traceback; a page is made for one place in twenty."""
    of_an_earlier_version(runs[0])
    file = runs[0] / "metrics.json"
    whole = json.loads(file.read_text())
    places = leaves(whole)
    assert len(places) > 60
    for at, place in enumerate(places):
        changed = copy.deepcopy(whole)
        part = changed
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = WRONG[number]
        file.write_text(json.dumps(changed))
        caplog.clear()
        found = find_runs(runs[0].parent)
        assert len(found) == 2 or f"left out: '{runs[0]}'" in caplog.text, place
        if len(found) == 2:
            rows = summarize(collect(found))
            print_tables(rows)
            if at % 20 == number:
                report_data(Study(tmp_path, tuple(rows)), None, queries=0)


@pytest.mark.parametrize("kind", [missing, empty, half, garbage, half_zeros])
@pytest.mark.parametrize("name", FILES)
def test_sweep_and_train_do_it_again(runs, toy_root, both, capsys, caplog, name, kind):
    before = outcome(RunFolder(runs[0]))
    kind(runs[0] / name)
    assert not RunFolder(runs[0]).is_done
    again = run(*words(toy_root, runs[0].parent, 0))
    assert again.path == runs[0] and again.is_done and outcome(again) == before
    if name != "status.json":  # without it nothing says that the run was done
        assert f"'{runs[0]}' says done, but {name}" in caplog.text
    assert yaml.safe_load((runs[0] / "config.yaml").read_text())["seed"] == 0


def test_a_copied_folder_is_whole(runs):
    """Its files have other inodes and times, so they are read."""
    assert all(RunFolder(path).is_done for path in runs)


def test_settings_that_were_edited_are_no_damage(runs, capsys):
    config = (runs[0] / "config.yaml").read_text()
    (runs[0] / "config.yaml").write_text(config.replace("captioned", "elsewhere"))
    assert report(runs[0], capsys)[1] == ""


def test_all_are_damaged(runs, capsys):
    for path in runs:
        half(path / "metrics.json")
    assert main.main(["report", str(runs[0].parent)]) == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith("error: ") and "holds no finished run (2 damaged)" in err[-1]


@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
@pytest.mark.parametrize("kind", [empty, half, garbage, half_zeros])
def test_a_damaged_checkpoint_encodes_nothing(runs, tmp_path, capsys, name, kind):
    (tmp_path / "texts.txt").write_text("a bee\n")
    kind(runs[0] / "checkpoints" / "best" / name)
    texts, out = str(tmp_path / "texts.txt"), str(tmp_path / "c.h5")
    for command in (
        ["encode", str(runs[0]), "--texts", texts, "--out", out],
        ["search", str(runs[0]), "--text", "a bee"],
    ):
        assert main.main(command) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and str(runs[0]) in err and "checkpoint" in err
    assert not Path(out).exists()


@pytest.mark.parametrize("name", ["codes.h5", "metrics.json", "split.npz"])
@pytest.mark.parametrize("kind", [missing, half, half_zeros])
def test_damaged_results_are_not_measured_or_searched(runs, capsys, name, kind):
    kind(runs[0] / name)
    for command in (["evaluate", str(runs[0])], ["search", str(runs[0]), "--text", "a bee"]):
        assert main.main(command) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and name in err
    assert main.main(["evaluate", str(runs[1])]) == 0 and RunFolder(runs[1]).is_done
    if name == "codes.h5":
        assert main.main(["metrics", "--run", str(runs[0])]) == 2
