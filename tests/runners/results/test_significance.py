"""Tests, corrections and ranks against SciPy, published numbers and loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from common.code_files.run_codes import CodeSet
from runners.evaluation.measure import count_directions
from runners.evaluation.query_ap import query_ap, read_query_ap, write_query_ap
from runners.results.significance import (
    Sample,
    against_best,
    half_width,
    holm,
    paired_test,
    ranking,
)


def test_interval():
    values = [0.71, 0.74, 0.69]
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    assert half_width(values) == pytest.approx((high - low) / 2)
    assert half_width([0.5]) is None


def test_paired_test():
    rng = np.random.default_rng(0)
    one, two = rng.random((2, 50))
    assert paired_test(one - two) == pytest.approx(scipy.stats.ttest_rel(one, two).pvalue)
    assert paired_test([*(one - two), math.nan]) == pytest.approx(paired_test(one - two))
    assert paired_test([0.1]) is None
    assert paired_test([0.0, 0.0]) == 1.0 and paired_test([0.1, 0.1, 0.1]) == 0.0


def test_holm_is_the_stepwise_rule():
    rng = np.random.default_rng(1)
    for _ in range(50):
        values = (rng.random(6) ** 3).tolist()
        rejected, order = set(), sorted(range(6), key=lambda i: values[i])
        for smaller, i in enumerate(order):  # as the rule says: stop at the first that is not small
            if values[i] * (6 - smaller) > 0.05:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(holm(values)) if p <= 0.05} == rejected
    assert holm([]) == [] and holm([0.4]) == [0.4] and max(holm([0.9, 0.8])) == 1.0


def sample(mean: float, noise: float, seeds: int = 3, split: str = "s", start: int = 0) -> Sample:
    rng = np.random.default_rng(start)
    queries = {s: mean + noise * rng.standard_normal(400) for s in range(seeds)}
    return Sample({s: float(q.mean()) for s, q in queries.items()}, queries, split)


def contrast(samples: list[Sample], other: int) -> float:
    """P value of method 0 against another in the linear model mAP ~ method + seed."""
    seeds, m = sorted(samples[0].maps), len(samples)
    rows = [(np.eye(m)[i], np.eye(len(seeds))[j]) for i in range(m) for j in range(len(seeds))]
    design = np.array([np.concatenate([method, seed[1:]]) for method, seed in rows])
    maps = np.array([s.maps[seed] for s in samples for seed in seeds])
    fitted, (rest,), rank, _ = np.linalg.lstsq(design, maps, rcond=None)
    along = np.zeros(design.shape[1])
    along[0], along[other] = 1, -1
    freedom = len(maps) - rank
    error = np.sqrt(rest / freedom * (along @ np.linalg.inv(design.T @ design) @ along))
    return float(2 * scipy.stats.t.sf(abs(along @ fitted) / error, freedom))


def test_only_what_every_test_tells_apart_is_told_apart():
    best = sample(0.8, 0.05, start=1)
    worse, near = sample(0.5, 0.05, start=2), sample(0.797, 0.05, start=4)
    verdicts = against_best([worse, best, near])
    assert [v.alike for v in verdicts] == [False, None, True]
    seeds = [contrast([best, worse, near], other) for other in (1, 2)]
    assert [verdicts[0].p_seeds, verdicts[2].p_seeds] == pytest.approx(holm(seeds))
    means = [np.mean([s.queries[i] for i in range(3)], 0) for s in (worse, best, near)]
    queries = [scipy.stats.ttest_rel(means[1], means[i]).pvalue for i in (0, 2)]
    assert [verdicts[0].p_queries, verdicts[2].p_queries] == pytest.approx(
        holm(queries), abs=1e-300
    )


def test_queries_differ_where_seeds_do_not():
    """Three seeds that contradict one another: the queries alone do not make it so."""
    one = Sample({0: 0.9, 1: 0.5, 2: 0.7}, sample(0.7, 0.01).queries, "s")
    two = Sample({0: 0.5, 1: 0.9, 2: 0.6}, sample(0.66, 0.01, start=5).queries, "s")
    verdict = against_best([one, two])[1]
    assert verdict.p_queries < 0.05 <= verdict.p_seeds and verdict.alike


def test_what_cannot_be_paired_is_not_tested():
    one = sample(0.8, 0.01, seeds=1)
    assert against_best([one])[0].alike is None
    for other in (sample(0.7, 0.01, 1, split="another"), Sample({5: 0.7}, {}, "s")):
        verdict = against_best([one, other])[1]
        assert (verdict.p_seeds, verdict.p_queries, verdict.alike) == (None, None, None)
    assert against_best([one, sample(0.7, 0.01, 1)])[1].p_queries < 0.05


def test_ranks_over_datasets():
    """Numbers of Demšar 2006, table 6: four variants of C4.5 on fourteen datasets (AUC).

    One of two rounded values that the table ranks apart has a digit more here.
    """
    table = """.763 .768 .771 .798|.599 .591 .590 .569|.954 .971 .968 .967|.628 .661 .654 .657
    .882 .888 .886 .898|.936 .931 .916 .931|.661 .668 .609 .685|.583 .583 .563 .625|.775 .838 .866
    .875|1.000 1.000 1.000 1.000|.940 .962 .965 .962|.619 .666 .614 .669|.972 .981 .9751 .975|.957
    .978 .946 .970"""
    numbers = np.array(table.replace("|", " ").split(), float).reshape(14, 4)
    names = ("C4.5", "m", "cf", "m+cf")
    scores = {str(i): dict(zip(names, row, strict=True)) for i, row in enumerate(numbers)}
    result = ranking(scores)
    assert result.datasets == 14 and next(iter(result.ranks)) == "m+cf"
    expected = {"C4.5": 3.143, "m": 2.000, "cf": 2.893, "m+cf": 1.964}
    assert result.ranks == pytest.approx(expected, abs=5e-4)
    assert result.difference == pytest.approx(1.25, abs=0.005)  # the paper's, at 5 %
    assert result.p == pytest.approx(scipy.stats.friedmanchisquare(*numbers.T).pvalue)
    assert set(result.groups[0]) == set(names)


def test_groups_and_what_is_not_ranked():
    scores = {
        str(i): {"a": 0.9, "b": 0.5, "c": 0.1, "only here" if i else "d": 1.0} for i in range(9)
    }
    result = ranking(scores)
    assert dict(result.ranks) == {"a": 1, "b": 2, "c": 3}
    assert list(result.groups) == [("a", "b"), ("b", "c")] and result.difference > 1
    assert ranking({"one": {"a": 1.0, "b": 0.0}}) is None
    assert ranking({"one": {"a": 1.0}, "two": {"a": 1.0}}) is None


def test_ap_of_each_query(tmp_path):
    rng = np.random.default_rng(0)
    sides = [
        CodeSet(
            {m: rng.choice([-1, 1], (n, 8)).astype(np.int8) for m in ("image", "text")},
            (rng.random((n, 3)) < 0.3).astype(np.uint8), np.arange(n),
        )
        for n in (7, 40)
    ]  # fmt: skip
    sides[0].labels[2] = 0
    counted = count_directions(*sides, ("i2t", "t2i"))
    values = query_ap(counted, no_relevant="zero")
    query, database = sides[0].codes["image"].astype(int), sides[1].codes["text"].astype(int)
    for q in range(7):
        distance = (8 - database @ query[q]) // 2
        relevant = sides[1].labels @ sides[0].labels[q] > 0
        orders = []
        for _ in range(400):  # random orders of equal distances
            order = np.lexsort((rng.random(40), distance))
            hits = relevant[order]
            precision = np.cumsum(hits) / np.arange(1, 41)
            orders.append((precision * hits).sum() / max(hits.sum(), 1))
        assert values["i2t"][q] == pytest.approx(np.mean(orders), abs=0.03)
    skipped = query_ap(counted, no_relevant="skip")["i2t"]
    assert np.isnan(skipped[2]) and np.isfinite(skipped[[0, 1, 3]]).all()
    write_query_ap(tmp_path, values)
    assert read_query_ap(tmp_path, "t2i").dtype == np.float32
    np.testing.assert_array_equal(read_query_ap(tmp_path, "t2i"), values["t2i"])
    assert read_query_ap(tmp_path, "i2i") is None and read_query_ap(tmp_path / "no", "i2t") is None
    (tmp_path / "query_ap.npz").write_bytes(b"nonsense")
    assert read_query_ap(tmp_path, "i2t") is None
