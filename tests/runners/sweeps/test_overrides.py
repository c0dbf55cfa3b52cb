"""Which runs a ``where`` chooses, that none is passed over, and what a dry run refuses."""

from __future__ import annotations

import fnmatch
import itertools
import sys
from pathlib import Path

import pytest
import yaml

import main
from runners.sweeps.overrides import Override, applied, matches
from runners.sweeps.sweep import expand, planned, read_sweep
from utils.errors import UserError

METHODS = ["csq", "dsh", "dpsh", "itq"]
GRID = {"method": METHODS, "dataset": ["folder"], "bits": [16, 32]}


def write(folder: Path, **content: object) -> Path:
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump({"grid": GRID, "output": str(folder / "out"), **content}))
    return file


def override(where: dict, **settings: object) -> dict:
    return {"where": where, "set": settings or {"runner.epochs": 7}}


def test_every_combination_of_where_against_the_standard_library():
    points = [dict(zip(GRID, v, strict=True)) for v in itertools.product(*GRID.values())]
    names: list = [None, "csq", ["csq", "itq"], "d*", "?sh", ["c?q", "dp*"], "*"]
    lengths: list = [None, 16, [16, 32], [32]]
    for name, length in itertools.product(names, lengths):
        where = {k: v for k, v in (("method", name), ("bits", length)) if v is not None}
        patterns = name if isinstance(name, list) else [name or "*"]
        accepted = length if isinstance(length, list) else [length] if length else [16, 32]
        expected = [
            p["bits"] in accepted and any(fnmatch.fnmatchcase(p["method"], w) for w in patterns)
            for p in points
        ]
        chosen = [bool(p.overrides) for p in applied(points, {}, [Override(where, {})])]
        assert chosen == expected, where


@pytest.mark.parametrize(
    ("wanted", "value", "expected"),
    [
        ([5, "all"], [5, "all"], True),  # a list may be a value of the grid
        (True, 1, False), (1, True, False), ("16", 16, False), (16, 16.0, True), (None, None, True),
        ("a[bc]*", "a[bc]d", True), ("a[bc]*", "abd", False), ("a.c", "abc", False),
        ("CSQ", "csq", False), ("*", 16, False), ([], "csq", False),
    ],
)  # fmt: skip
def test_matches(wanted, value, expected):
    assert matches(wanted, value) is expected


def test_lists_and_wildcards_set_what_they_choose(tmp_path):
    overrides = [
        override({"method": ["csq", "dp*"], "bits": 16}, **{"runner.epochs": 7}),
        override({"runner.epochs": 7}, **{"runner.batch_size": 9}),  # what an earlier one set
    ]
    file = write(tmp_path, overrides=overrides)
    runs = planned(read_sweep(file), file)
    seen = {
        (r.config.method, r.config.bits): (r.overrides, r.config.resolved["runner"].get("epochs"))
        for r in runs
    }
    assert {key for key, (numbers, _) in seen.items() if numbers == (0, 1)} == {
        ("csq", 16), ("dpsh", 16),
    }  # fmt: skip
    assert {key for key, (numbers, _) in seen.items() if not numbers} == (
        set(itertools.product(METHODS, (16, 32))) - {("csq", 16), ("dpsh", 16)}
    )
    assert seen["csq", 16][1] == 7 and seen["csq", 32][1] != 7


WRONG = [
    ({"method": "cqs"}, "overrides[1].where.method: 'cqs' chooses no run. Did you mean 'csq'?"),
    ({"method": ["csq", "ipq"]}, "overrides[1].where.method: 'ipq' chooses no run. Did you mean "),
    ({"method": "x*"}, "overrides[1].where.method: 'x*' chooses no run. Values of method there: "),
    ({"bit": 16}, "overrides[1].where.bit=16 chooses no run: none has the key 'bit' in grid or set."
     " Did you mean 'bits'?"),
    ({"bits": "16"}, "overrides[1].where.bits: '16' chooses no run. Did you mean 16 without quot"),
    ({"bits": []}, "overrides[1].where.bits=[] chooses no run"),
    ({"runner.epochs": 8}, "epochs: 8 chooses no run. Values of runner.epochs there: 7."),
    ({"method": "itq", "runner.epochs": 7}, "chooses no run: runs have each of its values, and"),
]  # fmt: skip


@pytest.mark.parametrize(("where", "message"), WRONG, ids=lambda v: str(v)[:40])
@pytest.mark.parametrize("words", [[], ["--dry-run"], ["--smoke"]], ids=str)
def test_a_where_that_chooses_no_run(where, message, words, tmp_path, capsys):
    overrides = [override({"method": "csq"}), override(where)]
    assert main.main(["sweep", str(write(tmp_path, overrides=overrides)), *words]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "sweep.yaml") in error and message in error
    assert "Traceback" not in error and not (tmp_path / "out").exists()


def test_what_only_a_later_override_sets_is_no_run_s(tmp_path):
    overrides = [override({"seed": 3}), override({"method": "csq"}, seed=3)]
    with pytest.raises(UserError, match=r"overrides\[0\].where.seed=3 .* none has the key 'seed'"):
        read_sweep(write(tmp_path, overrides=overrides))


def test_the_dry_run_says_which_overrides_chose_each_run(tmp_path, capsys):
    overrides = [override({"method": ["csq", "d*"]}), override({"bits": 32}, seed=5)]
    file = write(tmp_path, overrides=overrides)
    assert main.main(["sweep", str(file), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [config.run_name for config in expand(read_sweep(file), file)]
    assert len(names) == 8
    for name, line in zip(names, lines, strict=True):
        chosen = []
        if "-itq-" not in name:
            chosen.append("overrides[0] method=csq|d*")
        if "-32bit-" in name:
            chosen.append("overrides[1] bits=32")
        assert line == f"to do        {name}  {'; '.join(chosen) or 'no override'}"


def test_equal_runs_name_all_overrides_that_chose_them(tmp_path):
    overrides = [override({"bits": 32}, bits=16), override({"bits": 16}, bits=16)]
    file = write(tmp_path, overrides=overrides)
    assert [run.overrides for run in planned(read_sweep(file), file)] == [(0, 1)] * 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"workers": 0}, "workers=0 is not accepted"),
        ({"lease_s": 0}, "lease_s=0.0 is not accepted"),
        ({"retries": -1}, "retries=-1 is not accepted"),
        ({"launch": {"rya": {}}}, "Unknown launcher 'rya'. Did you mean 'ray'?"),
        ({"launch": {"ray": {"cpu": 2}}}, "launch.ray.cpu' is not known. Did you mean 'cpus'?"),
        ({"launch": {"submitit": {"minutes": 0}}}, "launch.submitit.minutes=0 is not accepted"),
        ({"launch": {"ray": {"gpus": -0.5}}}, "launch.ray.gpus=-0.5 is not accepted; 0 or more"),
        ({"launch": {"local": {"slots_per_gpu": -1}}}, "launch.local.slots_per_gpu=-1 is not"),
    ],
    ids=str,
)
@pytest.mark.parametrize("words", [[], ["--dry-run"]], ids=str)
def test_a_dry_run_refuses_what_a_start_does(content, message, words, tmp_path, capsys):
    assert main.main(["sweep", str(write(tmp_path, **content)), *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("launcher", ["ray", "submitit"])
def test_a_dry_run_needs_the_launcher_s_library(launcher, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, launcher, None)
    words = ["--dry-run", "--launcher", launcher]
    assert main.main(["sweep", str(write(tmp_path)), *words]) == 2
    assert f"--launcher {launcher} needs" in capsys.readouterr().err
