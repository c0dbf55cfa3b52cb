"""From a model to codes, from codes to metrics, and measuring a finished run again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from common.code_files.run_codes import CodeSet, read_codes
from common.directions import sides
from runners.evaluation.measure import (
    count_directions,
    encode,
    mean_map,
    report_counted,
)
from runners.evaluation.query_ap import read_query_ap
from runners.evaluation.reevaluate import reevaluate
from runners.evaluation.selection import score_directions
from tests.helpers import QUICK, run
from tests.models.toys import make_model, take, toy_batch, toy_problem
from utils.errors import UserError


def test_encode_keeps_the_order_and_the_mode():
    model, batch = make_model("dsph", toy_problem(16)).train(), toy_batch()  # has dropout
    parts = [take(batch, slice(start, start + 5)) for start in range(0, len(batch), 5)]
    codes = encode(model, parts, torch.device("cpu"), ["text", "image"])
    assert model.training
    assert codes["image"].dtype == np.int8 and codes["image"].shape == (24, 16)
    model.eval()
    with torch.no_grad():
        for modality, values in codes.items():
            expected = np.where(model.encode(batch, modality).numpy() < 0, -1, 1)
            np.testing.assert_array_equal(values, expected)


def test_zero_becomes_plus_one():
    model, batch = make_model("image_hash", toy_problem(16)), toy_batch()
    torch.nn.init.zeros_(model.heads["image"].weight)
    torch.nn.init.zeros_(model.heads["image"].bias)
    assert (encode(model, [batch], torch.device("cpu"), ["image"])["image"] == 1).all()


def average_precision(query, database, relevant, generator):
    """Return AP with ties in random order: what `expected` is the mean of."""
    order = generator.permutation(len(database))
    distances = (query != database[order]).sum(1)
    hits = relevant[order][np.argsort(distances, kind="stable")]
    return (hits.cumsum() / np.arange(1, len(hits) + 1))[hits].mean()


def test_each_direction_compares_its_own_sides():
    rng = np.random.default_rng(0)
    labels = np.eye(2, dtype=np.uint8)[rng.integers(0, 2, 12)]

    def part(rows):
        codes = {
            m: rng.choice(np.array([-1, 1], np.int8), (len(rows), 6)) for m in ("image", "text")
        }
        return CodeSet(codes, labels[rows], rows)

    query, database = part(np.arange(3)), part(np.arange(12))
    counted = count_directions(query, database, ["i2t", "t2i", "i2i"])
    reports = report_counted(counted, at=("all", 5), no_relevant="zero")
    assert list(reports) == ["i2t", "t2i", "i2i"]
    for direction, report in reports.items():
        of_query, of_database = sides(direction)
        drawn = [
            average_precision(
                query.codes[of_query][i], database.codes[of_database],
                (query.labels[i] @ database.labels.T) > 0, rng,
            )
            for i in range(3) for _ in range(400)
        ]  # fmt: skip
        assert report["map"]["all"]["expected"] == pytest.approx(np.mean(drawn), abs=0.02)
    assert mean_map(reports) == pytest.approx(
        np.mean([reports[d]["map"]["all"]["expected"] for d in reports])
    )


@pytest.mark.parametrize("no_relevant", ["zero", "skip"])
def test_what_selects_is_what_is_reported(no_relevant):
    rng = np.random.default_rng(1)
    query, database = (
        CodeSet(
            {"image": rng.choice(np.array([-1, 1], np.int8), (n, 6))},
            (rng.random((n, 4)) < 0.3).astype(np.uint8), np.arange(n),
        )
        for n in (9, 30)
    )  # fmt: skip
    query.labels[3] = 0  # nothing is relevant to it
    scores = score_directions(
        query, database, ["i2i"], ["mAP@all", "mAP@7"], no_relevant=no_relevant
    )
    counted = count_directions(query, database, ["i2i"])
    reports = report_counted(counted, at=["all", 7], no_relevant=no_relevant)
    for cut, band in reports["i2i"]["map"].items():
        assert scores["i2i"][f"mAP@{cut}"] == band["expected"]


@pytest.fixture
def finished(captioned, tmp_path):
    return run("method=dsph", *QUICK, *captioned, f"output={tmp_path}")


def test_measuring_again_gives_the_same_numbers(finished):
    before = finished.metrics()
    codes = finished.codes_file.read_bytes()
    after = reevaluate(finished.path).metrics()
    for metrics in (before, after):
        metrics["timing"].pop("time_s")
    assert after == before and finished.codes_file.read_bytes() == codes
    assert finished.is_done


def test_measuring_with_other_settings(finished):
    before = finished.metrics()
    words = ["eval.at=[all,5]", "eval.directions=[t2i,i2i]", "eval.no_relevant=skip"]
    after = reevaluate(finished.path, words).metrics()
    assert list(after["directions"]) == ["t2i", "i2i"]
    assert list(after["directions"]["t2i"]["map"]) == ["all", "5"]
    assert after["directions"]["t2i"]["map"]["all"] == before["directions"]["t2i"]["map"]["all"]
    assert after["protocol"]["queries_without_relevant"] == "skip"
    assert after["protocol"]["selected"] == before["protocol"]["selected"]
    assert read_query_ap(finished.path, "i2t") is None
    for direction, report in after["directions"].items():
        values = read_query_ap(finished.path, direction)
        assert len(values) == report["queries"]
        assert np.isnan(values).sum() == report["queries_without_relevant"]
        mean = report["map"]["all"]["expected"]
        assert np.nanmean(values, dtype=np.float64) == pytest.approx(mean, abs=1e-6)


def test_only_what_concerns_the_evaluation(finished):
    with pytest.raises(UserError, match="evaluate takes eval.at, .* not 'eval.select=last'"):
        reevaluate(finished.path, ["eval.select=last"])


def test_metrics_say_how_they_were_measured(finished):
    metrics = json.loads(finished.metrics_file.read_text())
    query, database, split_hash = read_codes(finished.codes_file)
    assert metrics["split_hash"] == split_hash
    rows = metrics["protocol"]["rows"]
    assert (rows["query"], rows["database"]) == (len(query.rows), len(database.rows))
    assert set(metrics["directions"]) == {"i2t", "t2i"}
    for report in metrics["directions"].values():
        bounds = report["map"]["all"]
        assert 0 <= bounds["worst"] <= bounds["expected"] <= bounds["best"] <= 1
