import json

import numpy as np
import pytest
import torch

from common.metrics import (
    average_precision,
    average_precision_at,
    build_histograms,
    pack_sides,
    parse_cuts,
    protocol,
    report_histograms,
    report_packed,
    retrieval_report,
)
from utils.errors import UserError


def case(queries=5, rows=60, bits=12, classes=4):
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 2, (n, classes)) for n in (queries, rows)]
    codes = [rng.choice([-1, 1], (n, bits)) for n in (queries, rows)]
    return codes[0], labels[0], codes[1], labels[1]


def test_the_report_says_what_its_parts_say():
    inputs = case()
    report = retrieval_report(*inputs, at=("all", "10", 1000), precision_at=(1, 60))
    histograms = build_histograms(*inputs)
    assert report["map"]["all"]["expected"] == float(average_precision(histograms).expected.mean())
    entry = report["map"]["10"]
    assert entry["denominator"] == "min"
    assert set(entry["by_denominator"]) == {"retrieved", "min", "total"}
    for name, band in entry["by_denominator"].items():
        direct = average_precision_at(histograms, 10, name)
        assert band["worst"] == float(direct.worst.mean())
    assert entry["best"] == entry["by_denominator"]["min"]["best"]
    assert report["map"]["1000"]["expected"] == pytest.approx(report["map"]["all"]["expected"])
    assert list(report["precision_at"]) == list(report["recall_at"]) == ["1", "60"]
    found = 1 - report["queries_without_relevant"] / 5
    assert report["recall_at"]["60"] == pytest.approx(found)
    assert report["pr_radius"]["radius"] == list(range(13))
    assert report["pr_radius"]["recall"][-1] == 1.0
    assert report["pr_rank"]["rank"][-1] == 60
    assert report["pr_rank"]["precision"][0] == report["precision_at"]["1"]
    assert report["precision_radius2"] == report["pr_radius"]["precision_macro"][2]
    assert (report["queries"], report["database"], report["bits"]) == (5, 60, 12)


def test_default_ranks_stop_at_the_database():
    assert list(retrieval_report(*case())["precision_at"]) == ["1", "10"]


def test_queries_without_relevant_rows_count_zero_or_are_skipped():
    codes, labels, rows, row_labels = case()
    labels[:2] = 0
    zero = retrieval_report(codes, labels, rows, row_labels)
    skip = retrieval_report(codes, labels, rows, row_labels, no_relevant="skip")
    assert zero["queries_without_relevant"] == skip["queries_without_relevant"] == 2
    assert zero["queries"] == skip["queries"] == 5
    for path in (("map", "all", "expected"), ("precision_at", "10"), ("ndcg", "all")):
        a, b = zero, skip
        for key in path:
            a, b = a[key], b[key]
        assert a == pytest.approx(b * 3 / 5)


@pytest.mark.parametrize("no_relevant", ["zero", "skip"])
def test_nothing_relevant_at_all_is_finite(no_relevant):
    codes, labels, rows, row_labels = case()
    report = retrieval_report(
        codes, labels * 0, rows, row_labels, at=("all", 7), no_relevant=no_relevant
    )
    json.dumps(report, allow_nan=False)
    assert report["map"]["all"] == {"expected": 0.0, "worst": 0.0, "best": 0.0}
    assert report["queries_without_relevant"] == 5


@pytest.mark.parametrize(("queries", "rows", "bits"), [(1, 1, 1), (1, 40, 1), (1, 3, 1000)])
def test_smallest_cases_are_json_ready(queries, rows, bits):
    report = retrieval_report(*case(queries, rows, bits, classes=1), at=("all", 2))
    text = json.dumps({**report, "protocol": protocol()}, allow_nan=False)
    assert json.loads(text)["bits"] == bits


def test_kinds_of_input_agree():
    codes, labels, rows, row_labels = case()
    plain = retrieval_report(codes, labels, rows, row_labels)
    real = codes * np.random.default_rng(1).random(codes.shape)
    assert retrieval_report(real, labels.astype(float), rows > 0, row_labels == 1) == plain
    tensors = [torch.from_numpy(part) for part in (codes, labels, rows, row_labels)]
    assert retrieval_report(*tensors, device="cpu", memory_mb=0.01) == plain


def test_class_numbers_equal_one_hot():
    rng = np.random.default_rng(2)
    codes, _, rows, _ = case()
    classes, row_classes = rng.integers(0, 4, 5), rng.integers(0, 4, 60)
    one_hot = np.eye(4)
    assert retrieval_report(codes, classes, rows, row_classes) == retrieval_report(
        codes, one_hot[classes], rows, one_hot[row_classes]
    )


def wrong(change):
    inputs = dict(zip(("qc", "ql", "dc", "dl"), case(), strict=True))
    inputs.update(change)
    return list(inputs.values())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"dc": np.ones((60, 16))}, "12 bits"),
        ({"dl": np.ones((60, 5))}, "4 classes"),
        ({"dl": np.zeros(60, int)}, "same kind"),
        ({"ql": np.ones((4, 4))}, "5 rows of codes and 4"),
        ({"qc": np.ones((0, 12)), "ql": np.ones((0, 4))}, "at least one row"),
        ({"dc": np.ones((0, 12)), "dl": np.ones((0, 4))}, "at least one row"),
        ({"qc": np.ones(12)}, r"\[N,K\]"),
        ({"qc": np.full((5, 12), np.nan)}, "In the query: .*NaN"),
        ({"dl": np.full((60, 4), 3)}, "other than 0 and 1"),
        ({"ql": np.full(5, -1)}, "class numbers"),
        ({"ql": np.array(["cat"] * 5)}, "Labels are"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change, word):
    with pytest.raises(UserError, match=word):
        retrieval_report(*wrong(change))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"at": ("most",)}, "'most'"),
        ({"at": (0,)}, "'0'"),
        ({"at": ()}, "No cut"),
        ({"precision_at": (0,)}, "at least 1"),
        ({"gain": "square"}, "gain of NDCG 'square'"),
        ({"backend": "cupy"}, "back end 'cupy'"),
        ({"no_relevant": "skp"}, "Did you mean 'skip'"),
        ({"device": "abacus"}, "abacus"),
        ({"memory_mb": 0}, "memory_mb"),
    ],
)
def test_wrong_options_are_refused(options, word):
    with pytest.raises(UserError, match=word):
        retrieval_report(*case(), **options)


def test_cuts_are_read_from_text_and_numbers():
    assert parse_cuts([" 10", 5, "all", "05"]) == {"10": 10, "5": 5, "all": None}
    assert parse_cuts("all") == {"all": None}


def test_a_report_can_come_from_any_histograms():
    histograms = build_histograms(*case())
    assert report_histograms(histograms) == retrieval_report(*case())


def test_cuts_and_ranks_beyond_the_database_mean_all_of_it_and_are_stated():
    report = retrieval_report(*case(), at=("all", 1000), precision_at=(60, 500))
    assert report["beyond_database"] == [500, 1000]
    assert report["map"]["1000"]["by_denominator"]["total"] == report["map"]["all"]
    assert report["precision_at"]["500"] == report["precision_at"]["60"]
    assert report["ndcg"]["1000"] == report["ndcg"]["all"]


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_blocks_and_back_ends_give_the_same_report(backend):
    codes, labels, rows, row_labels = case()
    query, database = pack_sides(codes, labels, rows, row_labels)
    blocks = [database.select(slice(top, top + 25)) for top in (0, 25, 50)]
    whole = retrieval_report(codes, labels, rows, row_labels, gain="linear")
    assert report_packed(query, iter(blocks), backend=backend, gain="linear") == whole


def test_strict_refuses_real_values():
    codes, labels, rows, row_labels = case()
    with pytest.raises(UserError, match="In the database: Codes hold -?0.5; under 'strict'"):
        retrieval_report(codes, labels, rows * 0.5, row_labels, strict=True)
