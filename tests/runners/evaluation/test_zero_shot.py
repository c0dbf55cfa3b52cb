"""Zero-shot measures: against loops over queries and rows, from runs, and when measured again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from common.code_files.run_codes import CodeSet
from dataset.splits import SplitManifest
from runners import base
from runners.evaluation import reevaluate as again
from runners.evaluation.reevaluate import reevaluate
from runners.evaluation.zero_shot import headline, zero_shot_report
from tests.helpers import PIXELS, QUICK, run

SEEN, BITS = (0, 1, 2), 40  # classes 3 and 4 are unseen


def codes_of(classes, seed, first=0):
    """Return rows of the given classes; distances of so many bits are all different enough."""
    rng = np.random.default_rng(seed)
    labels = np.eye(5, dtype=np.uint8)[list(classes)]
    codes = rng.choice(np.array([-1, 1], np.int8), (len(labels), BITS))
    return CodeSet({"image": codes}, labels, first + np.arange(len(labels)))


def average_precision(query, codes, relevant, cut=None):
    """Return AP in expectation over ties, from every order of few rows at equal distance."""
    distances = (codes != query).sum(1)
    values = []
    groups = [np.flatnonzero(distances == d) for d in np.unique(distances)]
    for order in itertools.product(*(itertools.permutations(group) for group in groups)):
        hits = relevant[np.concatenate(order).astype(int)][:cut]
        at = np.flatnonzero(hits) + 1
        limit = min(cut or len(codes), relevant.sum())
        values.append(sum((n + 1) / rank for n, rank in enumerate(at)) / limit if limit else 0.0)
    return np.mean(values)


def mean_precision(queries, database, keep, cut=None):
    """Return the mean over queries, with ``keep`` of the database's rows."""
    values = []
    for code, label in zip(queries.codes["image"], queries.labels, strict=True):
        relevant = (database.labels[keep] @ label) > 0
        values.append(average_precision(code, database.codes["image"][keep], relevant, cut))
    return pytest.approx(np.mean(values))


def test_the_measures_are_those_of_loops():
    query = codes_of([3, 4, 3, 4, 3], seed=0, first=100)
    database = codes_of([0, 1, 2, 3, 4] * 2, seed=1)
    report = zero_shot_report(
        query, database, ["i2i"], seen_classes=SEEN, trained_rows=np.array([0, 1]), at=[4]
    )
    measures = report["directions"]["i2i"]
    assert set(measures["all_classes"]) == {"4", "all", "5000"}
    every, unseen = np.full(10, True), database.labels[:, 3:].any(1)
    for cut, rows in (("all", None), ("4", 4)):
        expected = mean_precision(query, database, every, rows)
        assert measures["all_classes"][cut]["expected"] == expected
        expected = mean_precision(query, database, unseen, rows)
        assert measures["unseen_only"][cut]["expected"] == expected
    # class 2 alone has two rows that were not trained on; one of them becomes a query
    rows = report["rows"]
    assert rows["seen_queries"] == 1 and rows["generalised_database"] == 9
    mixed = measures["generalised"]
    fitting = []
    for row in np.flatnonzero(database.labels[:, 2]):
        query_mask, rest = np.arange(10) == row, np.arange(10) != row
        asking = CodeSet(
            {"image": database.codes["image"][query_mask]},
            database.labels[query_mask],
            database.rows[query_mask],
        )
        fitting.append(
            mixed["seen"]["all"]["expected"] == mean_precision(asking, database, rest)
            and mixed["unseen"]["all"]["expected"] == mean_precision(query, database, rest)
        )
    assert any(fitting)
    u, s = (mixed[kind]["4"]["expected"] for kind in ("unseen", "seen"))
    assert mixed["harmonic"]["4"] == pytest.approx(2 / (1 / u + 1 / s) if u and s else 0)
    assert headline(report).startswith("zero-shot i2i mAP@all: all classes 0.")


def test_queries_of_seen_classes_in_the_split_are_taken_as_they_are():
    query, database = codes_of([0, 3, 4, 2], seed=0, first=50), codes_of([0, 1, 2, 3, 4], seed=1)
    report = zero_shot_report(
        query, database, ["i2i"], seen_classes=SEEN, trained_rows=np.empty(0, np.int64)
    )
    assert report["seen_queries"] == "queries of the split"
    assert report["rows"] == {
        "unseen_queries": 2, "seen_queries": 2, "database": 5, "unseen_database": 2,
        "generalised_database": 5,
    }  # fmt: skip
    seen = CodeSet(
        {"image": query.codes["image"][[0, 3]]}, query.labels[[0, 3]], query.rows[[0, 3]]
    )
    value = report["directions"]["i2i"]["generalised"]["seen"]["all"]["expected"]
    assert value == mean_precision(seen, database, np.full(5, True))


def test_trained_rows_never_ask():
    query, database = codes_of([3, 4] * 20, seed=0, first=500), codes_of([0, 1, 2, 3] * 40, seed=1)
    trained = np.flatnonzero(database.labels[:, :2].any(1))
    report = zero_shot_report(query, database, ["i2i"], seen_classes=SEEN, trained_rows=trained)
    assert report["rows"]["seen_queries"] == 4  # a tenth of class 2's rows
    everything = np.arange(len(database.rows))
    report = zero_shot_report(query, database, ["i2i"], seen_classes=SEEN, trained_rows=everything)
    assert report["rows"]["seen_queries"] == 0
    assert set(report["directions"]["i2i"]) == {"all_classes", "unseen_only"}
    assert "seen /" not in headline(report)


def test_without_unseen_rows_in_the_database_and_without_unseen_queries():
    report = zero_shot_report(
        codes_of([3], seed=0, first=9), codes_of([0, 1, 1], seed=1), ["i2i"],
        seen_classes=SEEN, trained_rows=np.array([0, 1, 2]),
    )  # fmt: skip
    assert set(report["directions"]["i2i"]) == {"all_classes"}
    nothing = zero_shot_report(
        codes_of([0, 1], seed=0), codes_of([0, 3], seed=1), ["i2i"],
        seen_classes=SEEN, trained_rows=np.empty(0, np.int64),
    )  # fmt: skip
    assert nothing is None


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("zero_shot")


CREATURES = (
    "dataset=creatures_zeroshot", "dataset.rows=250", "dataset.split.query=1",
    "dataset.split.train=2", *PIXELS,
)  # fmt: skip


def test_runs_on_zero_shot_data_report_it_and_others_do_not(cache, monkeypatch, tmp_path, pictures):
    output = f"output={tmp_path}"
    plain = run("method=csq", *QUICK, *pictures, output)
    assert "zero_shot" not in plain.metrics()
    monkeypatch.setenv("HASHING_CACHE", str(cache))
    folder = run("method=itq", *CREATURES, output, "eval.at=[all,7]")
    metrics = folder.metrics()
    measured = metrics["zero_shot"]["directions"]["i2i"]
    assert set(measured) == {"all_classes", "unseen_only", "generalised"}
    assert metrics["zero_shot"]["seen_classes"] == list(range(40))
    for cut in ("all", "7"):  # all queries are of unseen classes
        assert measured["all_classes"][cut] == metrics["directions"]["i2i"]["map"][cut]
    again = reevaluate(folder.path, ["eval.at=[all,3]"]).metrics()["zero_shot"]["directions"]["i2i"]
    assert set(again["generalised"]["seen"]) == {"all", "3", "5000"}
    for measure in ("all_classes", "unseen_only"):
        assert again[measure]["all"] == measured[measure]["all"]


def test_training_on_every_class_is_not_zero_shot(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("HASHING_CACHE", str(cache))
    folder = run("method=itq", *CREATURES, "dataset.split.rule=per_class", f"output={tmp_path}")
    assert "zero_shot" not in folder.metrics()


def test_validation_rows_count_as_trained_on(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("HASHING_CACHE", str(cache))
    given = []
    for module in (base, again):
        report = module.report_run

        def spying(*arguments, report=report, **more):
            given.append(sorted(more["trained_rows"].tolist()))
            return report(*arguments, **more)

        monkeypatch.setattr(module, "report_run", spying)
    words = ["method=csq", *CREATURES, *QUICK, "runner.epochs=1", "eval.select=val"]
    folder = run(*words, f"output={tmp_path}")
    reevaluate(folder.path)
    split = SplitManifest.load(folder.path / "split.npz")
    assert len(split.val)
    assert given == [sorted([*split.train.tolist(), *split.val.tolist()])] * 2
