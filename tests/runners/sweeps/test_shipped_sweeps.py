"""Every sweep that is shipped can be expanded: its words are known, its values fit."""

import pytest

import main
from runners.sweeps.sweep import expand, grids, read_sweep
from tests.helpers import ROOT

SWEEPS = sorted((ROOT / "configs" / "sweep").glob("*.yaml"))


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_it_expands(file):
    sweep = read_sweep(file)
    runs = expand(sweep, file)
    methods = {name for grid in grids(sweep) for name in grid["method"]}
    assert {run.method for run in runs} == methods
    assert len({run.run_name for run in runs}) == len(runs)
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ") and first.endswith((".", ":"))


def test_larger_network_and_other_protocol_by_words(capsys):
    words = ["backbone=resnet50", "dataset.split.name=cifar10-2"]
    assert main.main(["sweep", "shc_cifar10", "--dry-run", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("cifar10-shc-" in line for line in lines) == 9
