"""The epochs that results are of: per run, per direction, per cut."""

from __future__ import annotations

import dataclasses
import statistics

import numpy as np
import pytest

import main
from common.code_files.run_codes import read_codes
from common.config.run_config import EvalConfig, compose
from common.directions import sides
from common.metrics import compat_map, retrieval_report
from runners import standard
from runners.evaluation.query_ap import read_query_ap
from runners.evaluation.reevaluate import reevaluate
from runners.evaluation.selection import (
    Selection,
    check_answered,
    chosen_on,
    contestants,
    criteria,
    improve,
    selection_of,
)
from tests.helpers import QUICK, run
from utils.errors import UserError

# rates so large that the measures go up and down from epoch to epoch
RESTLESS = ("method=dsph", *QUICK, "runner.epochs=6", "optim.lr=0.3", "eval.select=query")
CUTS = ("all", "1", "5")


@pytest.fixture
def seen(monkeypatch):
    """Return epoch → codes of query and database, filled while a run trains."""
    codes = {}
    measure = standard.measure_epoch

    def spying(query, database, *arguments, **more):
        codes[len(codes) + 1] = query, database
        return measure(query, database, *arguments, **more)

    monkeypatch.setattr(standard, "measure_epoch", spying)
    return codes


def exact(codes, direction: str, cut: str = "all") -> float:
    query, database = codes
    a, b = sides(direction)
    sets = query.codes[a], query.labels, database.codes[b], database.labels
    return retrieval_report(*sets, at=[cut])["map"][cut]["expected"]


def best(values: dict[int, float]) -> int:
    """Return the first epoch with the greatest value."""
    return max(values, key=lambda epoch: (values[epoch], -epoch))


def mean(codes, directions, cut: str) -> float:
    return statistics.fmean(exact(codes, direction, cut) for direction in directions)


def test_each_direction_is_that_of_its_own_best_epoch(captioned, tmp_path, seen):
    words = [*RESTLESS, *captioned, "eval.epoch_per=direction", "eval.directions=[i2t,t2i,i2i]"]
    folder = run(*words, f"output={tmp_path}")
    metrics = folder.metrics()
    own = {}
    for direction, report in metrics["directions"].items():
        values = {epoch: exact(codes, direction) for epoch, codes in seen.items()}
        own[direction] = report["epoch"]
        assert report["epoch"] == best(values)
        assert report["map"]["all"]["expected"] == pytest.approx(max(values.values()), abs=1e-12)
        per_query = read_query_ap(folder.path, direction)
        assert per_query.mean() == pytest.approx(max(values.values()), abs=1e-6)
    assert len(set(own.values())) > 1, "the toy should tell directions apart"
    selected = metrics["protocol"]["selected"]
    means = {epoch: mean(codes, own, "all") for epoch, codes in seen.items()}
    assert (selected["epoch"], selected["epochs"]) == (best(means), own)
    assert selected["by"] == "mAP@all" and chosen_on(selected) == "query, per direction"
    kept = {f"codes-epoch{epoch}.h5" for epoch in set(own.values()) - {selected["epoch"]}}
    assert {file.name for file in folder.path.glob("codes-*")} == kept
    for epoch in {selected["epoch"], *own.values()}:
        name = "codes.h5" if epoch == selected["epoch"] else f"codes-epoch{epoch}.h5"
        for stored, was in zip(read_codes(folder.path / name)[:2], seen[epoch], strict=True):
            for modality, codes in was.codes.items():
                np.testing.assert_array_equal(stored.codes[modality], codes)


def test_each_cut_and_measure_is_that_of_its_own_best_epoch(captioned, tmp_path, seen):
    words = [*RESTLESS, *captioned, "eval.epoch_per=cut", "eval.measure=[fire@3]"]
    folder = run(*words, "eval.at=[all,1,5]", f"output={tmp_path}")
    metrics = folder.metrics()
    selected, reports = metrics["protocol"]["selected"], metrics["directions"]
    for cut in CUTS:
        epoch = best({epoch: mean(codes, reports, cut) for epoch, codes in seen.items()})
        assert selected["epochs"][f"mAP@{cut}"] == epoch
        for direction, report in reports.items():
            value = exact(seen[epoch], direction, cut)
            assert report["map"][cut]["expected"] == pytest.approx(value, abs=1e-12)
            assert report.get("epochs", {}).get(f"mAP@{cut}", selected["epoch"]) == epoch
    assert len(set(selected["epochs"].values())) > 1, "the toy should tell cuts apart"
    assert selected["by"] == "fire@3" and selected["epoch"] == selected["epochs"]["fire@3"]
    query, database = seen[selected["epoch"]]
    for direction, report in reports.items():
        a, b = sides(direction)
        sets = query.codes[a], query.labels, database.codes[b], database.labels
        assert report["compat"]["fire@3"] == pytest.approx(compat_map("fire", *sets, at=3))
        per_query = read_query_ap(folder.path, direction)
        assert per_query.mean() == pytest.approx(report["map"]["all"]["expected"], abs=1e-6)


@pytest.mark.parametrize("per", ["direction", "cut"])
@pytest.mark.parametrize("select", ["val", "query"])
def test_measuring_again_keeps_every_epoch(select, per, captioned, tmp_path):
    words = [*RESTLESS, *captioned, f"eval.epoch_per={per}", "eval.at=[5,all]"]
    folder = run(*words, f"eval.select={select}", f"output={tmp_path}")
    before = folder.metrics()
    after = reevaluate(folder.path).metrics()
    assert after["directions"] == before["directions"]
    assert after["protocol"] == before["protocol"]
    other = reevaluate(folder.path, ["eval.at=[5,7]", "eval.measure=[mith@all]"]).metrics()
    for direction, report in other["directions"].items():
        assert report["map"]["5"] == before["directions"][direction]["map"]["5"]
        assert report["epoch"] == before["directions"][direction]["epoch"]
        assert 0 <= report["compat"]["mith@all"] <= 1
    assert list(other["protocol"]["measures"]) == ["mith@all"]


def test_codes_of_an_epoch_that_are_gone_are_missed(captioned, tmp_path, capfd):
    words = [*RESTLESS, *captioned, "eval.epoch_per=direction", "eval.directions=[i2t,t2i,i2i]"]
    folder = run(*words, f"output={tmp_path}")
    for file in folder.path.glob("codes-epoch*.h5"):
        file.unlink()
    assert main.main(["evaluate", str(folder.path)]) == 2
    assert "h5 is missing; train or sweep" in capfd.readouterr().err


def test_a_measure_chooses_the_epoch(captioned, tmp_path, seen):
    folder = run(*RESTLESS, *captioned, "eval.measure=[fire@2,mith@all]", f"output={tmp_path}")
    values = {}
    for epoch, (query, database) in seen.items():
        labels = query.labels, database.labels
        values[epoch] = statistics.fmean(
            compat_map("fire", query.codes[a], labels[0], database.codes[b], labels[1], at=2)
            for a, b in (("image", "text"), ("text", "image"))
        )
    selected = folder.metrics()["protocol"]["selected"]
    assert (selected["epoch"], selected["by"]) == (best(values), "fire@2")
    assert selected["score"] == pytest.approx(max(values.values()))
    assert set(folder.metrics()["directions"]["i2t"]["compat"]) == {"fire@2", "mith@all"}


def test_what_epochs_are_compared_by():
    assert criteria(EvalConfig()) == ["mAP@all"]
    assert criteria(EvalConfig(at=[1000, "all"])) == ["mAP@1000"]
    measured = EvalConfig(at=["all", 10], measure=["fire@5", "mith@all"])
    assert criteria(measured) == ["fire@5"]
    cuts = dataclasses.replace(measured, epoch_per="cut")
    assert criteria(cuts) == ["fire@5", "mith@all", "mAP@all", "mAP@10"]


def test_the_first_of_equal_epochs_is_the_best():
    state: dict = {}
    values = {"i2t": {"mAP@all": 0.5}, "t2i": {"mAP@all": 0.25}}
    assert improve(state, 1, contestants(values, "direction")) == ["run", "i2t", "t2i"]
    assert improve(state, 2, contestants(values, "direction")) == []
    values["t2i"]["mAP@all"] = 0.75
    assert improve(state, 3, contestants(values, "direction")) == ["run", "t2i"]
    selection = selection_of(EvalConfig(select="query", epoch_per="direction"), state)
    assert (selection.epoch, selection.score) == (3, 0.625)
    assert selection.epochs == {"i2t": 1, "t2i": 3}
    assert "each direction at its own best epoch by mAP@all" in selection.words
    assert Selection.read(selection.as_json()) == selection


def test_a_measure_that_is_nan_chooses_nothing():
    labels = np.eye(3)
    evaluation = EvalConfig(measure=["kalenforn@all"])
    check_answered(evaluation, labels, labels)
    message = "NaN where a query has no relevant row, as 1 of 3 have; give mith@all"
    with pytest.raises(UserError, match=message):
        check_answered(evaluation, labels, labels[:2])
    check_answered(EvalConfig(measure=["mith@all", "kalenforn@all"]), labels, labels[:2])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("eval.measure=[kalenforn]", "'kalenforn' names no measure"),
        ("eval.measure=[kalenform@all]", "Did you mean 'kalenforn'"),
        ("eval.measure=[fire@-1]", "its cut is 'all' or a whole number from 1"),
        ("eval.measure=[mith@0]", "its cut is 'all' or a whole number from 1"),
        ("eval.measure=[mith@some]", "'mith@some' names no measure"),
        ("eval.epoch_per=epoch", "eval.epoch_per"),
        ("eval.epoch_per=direction eval.select=last", "eval.select=last chooses none"),
    ],
)
def test_what_is_not_accepted(words, message, captioned, tmp_path, capfd):
    with pytest.raises(UserError) as error:
        compose(["method=dsph", *captioned, *words.split()])
    assert message in str(error.value) and "command line" in str(error.value)
    out = f"output={tmp_path / 'out'}"
    assert main.main(["train", "method=dsph", *captioned, *words.split(), out]) == 2
    assert message in capfd.readouterr().err and not (tmp_path / "out").exists()
