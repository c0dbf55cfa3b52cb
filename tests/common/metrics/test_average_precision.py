from fractions import Fraction

import numpy as np
import pytest
import torch

from common.metrics import (
    DENOMINATORS,
    Histograms,
    average_precision,
    average_precision_at,
    build_histograms,
    mean_band,
)
from common.metrics.counting.closed_forms import harmonic_difference
from tests.common.metrics import oracle
from utils.errors import UserError


def row(band):
    return [float(part[0]) for part in band]


@pytest.mark.parametrize("seed", range(5))
def test_ap_over_all_permutations(seed):
    rng = np.random.default_rng(seed)
    for _ in range(40):
        case = oracle.small_case(rng, bits=int(rng.integers(1, 5)), rows=int(rng.integers(1, 7)))
        distances, relevant = oracle.distances_of(*case)
        ours = row(average_precision(build_histograms(*case)))
        assert ours == pytest.approx(
            oracle.band(distances, relevant, len(distances), "total"), abs=1e-12
        )


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("seed", range(5))
def test_ap_at_over_all_permutations(seed, denominator):
    rng = np.random.default_rng(100 + seed)
    for _ in range(30):
        case = oracle.small_case(rng, bits=int(rng.integers(1, 4)), rows=int(rng.integers(1, 7)))
        distances, relevant = oracle.distances_of(*case)
        histograms = build_histograms(*case)
        for cut in range(1, len(distances) + 3):
            ours = row(average_precision_at(histograms, cut, denominator))
            assert ours == pytest.approx(
                oracle.band(distances, relevant, cut, denominator), abs=1e-12
            ), (distances, relevant, cut)


def test_retrieved_against_every_count_in_larger_buckets():
    """Buckets too large for permutations: given j, the extremes put relevant rows first or last."""
    rng = np.random.default_rng(7)
    for _ in range(60):
        n = rng.integers(0, 12, 4)
        n[0] += 1
        r = rng.integers(0, n + 1)
        cut = int(rng.integers(1, n.sum() + 1))
        ours = average_precision_at(
            Histograms(torch.from_numpy(n)[None], torch.from_numpy(r)[None]), cut, "retrieved"
        )
        worst, best = [], []
        bucket = int(np.searchsorted(n.cumsum(), cut))
        m = cut - int(n[:bucket].sum())
        for j in range(max(0, m - int(n[bucket] - r[bucket])), min(m, int(r[bucket])) + 1):
            nearer = [(int(a), int(b)) for a, b in zip(n[:bucket], r[:bucket], strict=True)]
            parts = [*nearer, (m, j)]
            low = [hit for a, b in parts for hit in [False] * (a - b) + [True] * b]
            high = [hit for a, b in parts for hit in [True] * b + [False] * (a - b)]
            worst.append(float(oracle.ap_at(low, cut, "retrieved")))
            best.append(float(oracle.ap_at(high, cut, "retrieved")))
        assert float(ours.worst) == pytest.approx(min(worst), abs=1e-12)
        assert float(ours.best) == pytest.approx(max(best), abs=1e-12)


def test_retrieved_expectation_in_a_large_bucket_against_sampling():
    histograms = Histograms(torch.tensor([[40, 5000]]), torch.tensor([[9, 700]]))
    rng = np.random.default_rng(3)
    values = []
    for _ in range(4000):
        ranked = np.zeros(5040, bool)
        ranked[rng.permutation(40)[:9]] = True
        ranked[40 + rng.permutation(5000)[:700]] = True
        hits = ranked[:1000].cumsum()[ranked[:1000]]
        values.append((hits / (np.flatnonzero(ranked[:1000]) + 1)).sum() / len(hits))
    ours = float(average_precision_at(histograms, 1000, "retrieved").expected)
    assert ours == pytest.approx(np.mean(values), abs=5 * np.std(values) / np.sqrt(len(values)))


def test_batch_equals_queries_one_by_one():
    rng = np.random.default_rng(0)
    n = torch.from_numpy(rng.integers(0, 9, (17, 6)))
    n[:, 5] += 60 - n.sum(1)  # every query sees the same database
    r = (n * torch.rand(17, 6, dtype=torch.float64)).long()
    for at in (None, 1, 7, 25, 60):
        for denominator in DENOMINATORS:
            together = average_precision_at(Histograms(n, r), at, denominator)
            for i in range(17):
                alone = average_precision_at(
                    Histograms(n[i : i + 1], r[i : i + 1]), at, denominator
                )
                for a, b in zip(together, alone, strict=True):
                    assert float(a[i]) == pytest.approx(float(b[0]), abs=1e-14)


def test_no_ties_give_one_value():
    rng = np.random.default_rng(1)
    relevant = torch.from_numpy(rng.integers(0, 2, (5, 201)))
    histograms = Histograms(torch.ones(5, 201, dtype=torch.int64), relevant)
    for at in (None, 50):
        for denominator in DENOMINATORS:
            expected, worst, best = average_precision_at(histograms, at, denominator)
            torch.testing.assert_close(worst, best, rtol=0, atol=1e-13)
            assert ((worst <= expected) & (expected <= best)).all()


def test_collapsed_model_scores_the_prevalence():
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(0, 10, 5000))  # ordered by class: a stable sort would gain
    codes = np.ones((5000, 16), np.int8)
    histograms = build_histograms(codes[:50], rng.integers(0, 10, 50), codes, labels)
    expected, worst, best = mean_band(average_precision(histograms)).values()
    assert expected == pytest.approx(0.1, abs=0.005)
    assert worst < 0.06
    assert best == 1.0


def test_perfect_ranking_is_exactly_one():
    histograms = Histograms(torch.tensor([[30, 999_970]]), torch.tensor([[30, 0]]))
    assert row(average_precision(histograms)) == [1.0, 1.0, 1.0]


def test_no_relevant_row_gives_zero():
    histograms = Histograms(torch.tensor([[2, 3]]), torch.tensor([[0, 0]]))
    for denominator in DENOMINATORS:
        assert row(average_precision_at(histograms, 4, denominator)) == [0.0, 0.0, 0.0]


def test_no_query_gives_empty_and_zero_mean():
    empty = Histograms(torch.zeros(0, 5).long(), torch.zeros(0, 5).long())
    for denominator in DENOMINATORS:
        band = average_precision_at(empty, 3, denominator)
        assert band.expected.shape == (0,)
        assert mean_band(band) == {"expected": 0.0, "worst": 0.0, "best": 0.0}


def test_thousand_bits_and_large_database():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 2, (300, 1000), generator=generator) * 2 - 1
    labels = torch.randint(0, 3, (300,), generator=generator)
    histograms = build_histograms(codes[:3], labels[:3], codes, labels)
    for denominator in DENOMINATORS:
        band = average_precision_at(histograms, 100, denominator)
        assert (band.worst <= band.expected).all()
        assert (band.expected <= band.best).all()
    one_far_pair = Histograms(torch.tensor([[10**9, 2]]), torch.tensor([[0, 2]]))
    exact = float((Fraction(1, 10**9 + 1) + Fraction(2, 10**9 + 2)) / 2)
    assert float(average_precision(one_far_pair).expected) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("start", [0, 1, 62, 63, 64, 65, 1000])
@pytest.mark.parametrize("count", [0, 1, 2, 64, 300])
def test_harmonic_difference(start, count):
    exact = float(sum((Fraction(1, start + i) for i in range(1, count + 1)), Fraction(0)))
    ours = harmonic_difference(start, count)
    assert ours == pytest.approx(exact, rel=1e-14)


def test_wrong_options_are_refused():
    histograms = Histograms(torch.tensor([[1]]), torch.tensor([[1]]))
    with pytest.raises(UserError, match="Did you mean 'total'"):
        average_precision_at(histograms, 1, "totla")
    with pytest.raises(UserError, match="at least 1"):
        average_precision_at(histograms, 0)


def test_the_divisor_is_the_lesser_of_cut_and_relevant_rows_unless_said_otherwise():
    histograms = Histograms(torch.tensor([[1, 3, 4]]), torch.tensor([[1, 1, 3]]))
    by_name = {name: average_precision_at(histograms, 2, name).expected for name in DENOMINATORS}
    assert len({float(value) for value in by_name.values()}) == 3
    assert torch.equal(average_precision_at(histograms, 2).expected, by_name["min"])
