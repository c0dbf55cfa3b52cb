import itertools
import math

import numpy as np
import pytest
import torch

from common.metrics import (
    Histograms,
    build_histograms,
    count_grades,
    curve_by_radius,
    curve_by_rank,
    log_ranks,
    ndcg_at,
    pack_rows,
    precision_within,
    r_precision,
)
from tests.common.metrics import oracle
from utils.errors import UserError


def test_by_rank_and_ndcg_over_all_permutations():
    rng = np.random.default_rng(0)
    for _ in range(60):
        case = oracle.small_case(rng, bits=int(rng.integers(1, 4)), rows=int(rng.integers(1, 7)))
        distances, relevant = oracle.distances_of(*case)
        histograms = build_histograms(*case)
        ranks = list(range(1, len(distances) + 1))
        curve = curve_by_rank(histograms, ranks)
        for rank in ranks:
            found = oracle.expected_found(distances, relevant, rank)
            assert float(curve.precision[0, rank - 1]) == pytest.approx(found / rank)
            recall = found / sum(relevant) if any(relevant) else 0.0
            assert float(curve.recall[0, rank - 1]) == pytest.approx(recall)
            assert float(ndcg_at(histograms, rank)) == pytest.approx(
                oracle.expected_ndcg(distances, relevant, rank), abs=1e-12
            )


@pytest.mark.parametrize("gain", ["binary", "linear", "exponential"])
def test_graded_ndcg_over_all_permutations(gain):
    value = {
        "binary": lambda grade: grade > 0,
        "linear": lambda grade: grade,
        "exponential": lambda grade: 2**grade - 1,
    }[gain]
    rng = np.random.default_rng(2)
    for _ in range(40):
        rows = int(rng.integers(1, 6))
        codes = rng.choice([-1, 1], (rows + 1, 2))
        labels = rng.random((rows + 1, 4)) < 0.6
        query, database = pack_rows(codes[:1], labels[:1]), pack_rows(codes[1:], labels[1:])
        distances = (codes[0] != codes[1:]).sum(1)
        gains = [float(value(int(g))) for g in (labels[0] & labels[1:]).sum(1)]
        for cut in (1, rows, rows + 3, None):
            ideal = dcg(sorted(gains, reverse=True), cut)
            found = [
                dcg([gains[row] for row in order], cut)
                for order in itertools.permutations(range(rows))
                if (np.diff(distances[list(order)]) >= 0).all()
            ]
            expected = np.mean(found) / ideal if ideal else 0.0
            graded = count_grades(query, database)
            assert float(ndcg_at(graded, cut, gain)) == pytest.approx(expected, abs=1e-12)


def dcg(gains, cut):
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains[:cut], start=1))


def test_graded_ndcg_needs_grades():
    with pytest.raises(UserError, match="needs counts by grade"):
        ndcg_at(build_histograms(*radius_case()), gain="linear")


def test_r_precision_over_all_permutations():
    rng = np.random.default_rng(3)
    for _ in range(60):
        case = oracle.small_case(rng, bits=int(rng.integers(1, 4)), rows=int(rng.integers(1, 7)))
        distances, relevant = oracle.distances_of(*case)
        total = sum(relevant)
        expected = oracle.expected_found(distances, relevant, total) / total if total else 0.0
        assert float(r_precision(build_histograms(*case))) == pytest.approx(expected)


def radius_case():
    rng = np.random.default_rng(1)
    codes = [rng.choice([-1, 1], (n, 9)) for n in (4, 40)]
    labels = [rng.integers(0, 2, (n, 3)) for n in (4, 40)]
    labels[0][1] = 0  # a query without a relevant row
    return codes[0], labels[0], codes[1], labels[1]


def test_by_radius_equals_loops():
    queries, query_labels, rows, row_labels = radius_case()
    histograms = build_histograms(*radius_case())
    micro, macro = curve_by_radius(histograms), curve_by_radius(histograms, "macro")
    for radius in range(10):
        seen, hits, per_query = 0, 0, []
        everything = 0
        for code, label in zip(queries, query_labels, strict=True):
            near = [(code != other).sum() <= radius for other in rows]
            relevant = [(label * other).sum() > 0 for other in row_labels]
            both = sum(a and b for a, b in zip(near, relevant, strict=True))
            seen, hits, everything = seen + sum(near), hits + both, everything + sum(relevant)
            per_query.append((both / max(1, sum(near)), both / max(1, sum(relevant))))
        assert float(micro.precision[radius]) == pytest.approx(hits / max(1, seen))
        assert float(micro.recall[radius]) == pytest.approx(hits / everything)
        mean = np.mean(per_query, axis=0)
        assert float(macro.precision[radius]) == pytest.approx(mean[0])
        assert float(macro.recall[radius]) == pytest.approx(mean[1])
        within = precision_within(histograms, radius)
        assert within.tolist() == pytest.approx([p for p, _ in per_query])


def test_radius_beyond_the_bits_means_all():
    histograms = Histograms(torch.tensor([[1, 1]]), torch.tensor([[0, 1]]))
    assert precision_within(histograms, 2).tolist() == [0.5]


def test_empty_radius_has_precision_zero():
    curve = curve_by_radius(Histograms(torch.tensor([[0, 2]]), torch.tensor([[0, 1]])))
    assert curve.precision.tolist() == [0.0, 0.5]
    assert curve.recall.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("database", [1, 2, 99, 1000, 54_000, 10**7])
def test_log_ranks_span_the_database(database):
    ranks = log_ranks(database)
    assert ranks[0] == 1
    assert ranks[-1] == database
    assert ranks == sorted(set(ranks))
    assert len(ranks) <= 100


def test_ranks_outside_the_database_and_unknown_average_are_refused():
    histograms = Histograms(torch.tensor([[1, 1]]), torch.tensor([[0, 1]]))
    for rank in (0, 3):
        with pytest.raises(UserError, match=r"outside of 1\.\.2"):
            curve_by_rank(histograms, [rank])
    with pytest.raises(UserError, match="'micro' and 'macro'"):
        curve_by_radius(histograms, "weighted")


def test_no_query_gives_zero_curves():
    empty = Histograms(torch.zeros(0, 3).long(), torch.zeros(0, 3).long())
    for average in ("micro", "macro"):
        assert curve_by_radius(empty, average).precision.tolist() == [0.0, 0.0, 0.0]
    assert curve_by_rank(empty, [1]).recall.shape == (0, 1)


@pytest.mark.parametrize("cut", [None, 2**20 - 1, 2**20, 2**20 + 1, 2**21 + 10])
def test_ndcg_far_down_a_ranking(cut):
    # more rows than the ranks that are summed at once; relevant ones before and behind that
    rows = torch.tensor([[2**20 - 5, 40, 2**20, 300], [5, 2**20, 2**20, 350]])
    relevant = torch.tensor([[0, 20, 1000, 300], [0, 0, 0, 7]])
    database = int(rows[0].sum())
    rows[1, 3] += database - int(rows[1].sum())
    discounts = 1 / np.log2(2 + np.arange(database))
    found = ndcg_at(Histograms(rows, relevant), cut)
    for q in range(2):
        gains = np.concatenate(
            [
                np.full(int(n), r / n)
                for n, r in zip(rows[q].tolist(), relevant[q].tolist(), strict=True)
            ]
        )
        ideal = discounts[:cut][: int(relevant[q].sum())].sum()
        assert float(found[q]) == pytest.approx(gains[:cut] @ discounts[:cut] / ideal, rel=1e-9)
    assert float(found[1]) > 0 or cut is not None


def test_defaults():
    rng = np.random.default_rng(0)
    case = oracle.small_case(rng, bits=3, rows=6)
    histograms = build_histograms(*case)
    default, micro = curve_by_radius(histograms), curve_by_radius(histograms, "micro")
    assert torch.equal(default.precision, micro.precision)
    assert torch.equal(precision_within(histograms), precision_within(histograms, 2))
