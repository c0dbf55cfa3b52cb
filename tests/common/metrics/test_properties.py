"""Every metric against brute force over every order of tied rows, on small random cases."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.codes import sign
from common.metrics import (
    DENOMINATORS,
    average_precision,
    average_precision_at,
    build_histograms,
    curve_by_radius,
    curve_by_rank,
    ndcg_at,
    precision_within,
)
from common.metrics.compat.curves import deephash_curve, deephash_precision_recall
from common.metrics.compat.policies import POLICIES, compat_map
from common.metrics.compat.stable_order import stable_order
from tests.common.metrics import oracle

RELATIVE = 1e-12


@dataclasses.dataclass
class Sides:
    """Two sides of a retrieval, and what the oracle says of every query."""

    query: np.ndarray
    query_label: np.ndarray
    database: np.ndarray
    label: np.ndarray

    @property
    def parts(self):
        return self.query, self.query_label, self.database, self.label

    def queries(self):
        """Distances and relevance of every query, bit by bit and label by label."""
        return zip(
            oracle.distance_rows(self.query, self.database),
            oracle.relevant_rows(self.query_label, self.label),
            strict=True,
        )


@st.composite
def sides(draw, values=(-1, 1), most_rows=6):
    """1 to 4 bits, 1 or 2 queries, 1 to 6 rows, class numbers or multi-hot labels."""
    bits = draw(st.integers(1, 4))
    classes = draw(st.integers(1, 3))
    multi_hot = draw(st.booleans())
    made = []
    for n in (draw(st.integers(1, 2)), draw(st.integers(1, most_rows))):
        made.append(draw(arrays(np.int8, (n, bits), elements=st.sampled_from(values))))
        if multi_hot:
            made.append(draw(arrays(np.bool_, (n, classes))))
        else:
            made.append(draw(arrays(np.int64, n, elements=st.integers(0, classes - 1))))
    return Sides(*made)


def one_bit_one_query_one_row(relevant):
    one = np.ones((1, 1), np.int8)
    return Sides(one, np.array([0]), -one, np.array([0 if relevant else 1]))


def all_codes_equal(answered=True):
    labels = np.array([[1, 0], [0, 1], [1, 1], [0, 0], [0, 1], [1, 0]], bool)
    codes = np.ones((6, 3), np.int8)
    return Sides(codes[:2], labels[:2] & answered, codes, labels)


def same_cases(examples):
    """The same random cases on every machine, without a time limit for one of them."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


@same_cases(200)
@example(case=one_bit_one_query_one_row(True), cut=1)
@example(case=one_bit_one_query_one_row(False), cut=3)
@example(case=all_codes_equal(), cut=4)
@example(case=all_codes_equal(answered=False), cut=4)
@given(case=sides(), cut=st.integers(1, 7))
def test_bands_equal_brute_force(case, cut):
    histograms = build_histograms(*case.parts)
    whole = average_precision(histograms)
    bands = {name: average_precision_at(histograms, cut, name) for name in DENOMINATORS}
    for i, (distances, relevant) in enumerate(case.queries()):
        expected = oracle.band(distances, relevant, len(relevant), "total")
        assert [float(part[i]) for part in whole] == pytest.approx(expected, rel=RELATIVE)
        for name, band in bands.items():
            expected = oracle.band(distances, relevant, cut, name)
            assert [float(part[i]) for part in band] == pytest.approx(expected, rel=RELATIVE)


@same_cases(200)
@example(case=one_bit_one_query_one_row(True), cut=1)
@example(case=one_bit_one_query_one_row(False), cut=3)
@example(case=all_codes_equal(), cut=4)
@example(case=all_codes_equal(answered=False), cut=4)
@given(case=sides(), cut=st.integers(1, 7))
def test_curves_equal_brute_force(case, cut):
    histograms = build_histograms(*case.parts)
    ranks = list(range(1, len(case.label) + 1))
    curve, ndcg = curve_by_rank(histograms, ranks), ndcg_at(histograms, cut)
    for i, (distances, relevant) in enumerate(case.queries()):
        for rank in ranks:
            found = oracle.expected_found(distances, relevant, rank)
            recall = found / max(1, sum(relevant))
            assert float(curve.precision[i, rank - 1]) == pytest.approx(found / rank, rel=RELATIVE)
            assert float(curve.recall[i, rank - 1]) == pytest.approx(recall, rel=RELATIVE)
        expected = oracle.expected_ndcg(distances, relevant, cut)
        assert float(ndcg[i]) == pytest.approx(expected, rel=RELATIVE)


@same_cases(100)
@example(case=all_codes_equal(answered=False))
@given(case=sides())
def test_radii_equal_counting(case):
    histograms = build_histograms(*case.parts)
    curve = curve_by_radius(histograms)
    everything = sum(sum(relevant) for _, relevant in case.queries())
    for radius in range(histograms.bits + 1):
        seen, hits = [], []
        for distances, relevant in case.queries():
            near = [hit for d, hit in zip(distances, relevant, strict=True) if d <= radius]
            seen.append(len(near))
            hits.append(sum(near))
        own = [a / max(1, b) for a, b in zip(hits, seen, strict=True)]
        assert precision_within(histograms, radius).tolist() == pytest.approx(own, rel=RELATIVE)
        assert float(curve.precision[radius]) == pytest.approx(sum(hits) / max(1, sum(seen)))
        assert float(curve.recall[radius]) == pytest.approx(sum(hits) / max(1, everything))


@same_cases(50)
@given(case=sides(values=(-1, 0, 1)))
def test_a_real_zero_is_plus_one(case):
    """Our default: codes are signs, and the sign of 0 is +1."""
    halves = [case.query / 2, case.database / 2]  # 0/1 alone would be read as bits
    assume(all(side.any() for side in halves))
    signs = [np.where(side < 0, -1, 1) for side in halves]
    assert all(
        (sign(torch.from_numpy(a)).numpy() == b).all() for a, b in zip(halves, signs, strict=True)
    )
    ours = build_histograms(halves[0], case.query_label, halves[1], case.label)
    plain = build_histograms(signs[0], case.query_label, signs[1], case.label)
    assert torch.equal(ours.rows, plain.rows)
    assert torch.equal(ours.relevant, plain.relevant)
    for i, (distances, relevant) in enumerate(
        Sides(signs[0], case.query_label, signs[1], case.label).queries()
    ):
        expected = oracle.band(distances, relevant, len(relevant), "total")
        assert float(average_precision(ours).expected[i]) == pytest.approx(
            expected[0], rel=RELATIVE
        )


def defined(name, ranked, at):
    """AP of one order as a policy's repository has it; None where it has none."""
    if POLICIES[name].cut == "relevant":
        value = oracle.first_k(ranked, at)
    else:
        value = oracle.ap_at(ranked, len(ranked) if at is None else at, "retrieved")
    return None if value == 0 and POLICIES[name].unanswered == "nan" else value


@same_cases(100)
@example(case=one_bit_one_query_one_row(False), at=None)
@example(case=all_codes_equal(), at=2)
@given(case=sides(values=(-1, 0, 1)), at=st.none() | st.integers(1, 7))
def test_policies_equal_their_definitions_in_stable_and_extreme_orders(case, at):
    """Zeros give half distances; ties go by row number, or as an order says."""
    assume((case.query < 0).any() or (case.database < 0).any())
    pairs = list(case.queries())
    distances = torch.tensor([[float(d) for d in row] for row, _ in pairs])
    relevant = torch.tensor([row for _, row in pairs])
    orders = {
        "stable": stable_order(distances),
        "worst": stable_order(4 * distances + relevant.int()),
        "best": stable_order(4 * distances - relevant.int()),
    }
    for name, order in orders.items():
        ranked = relevant.gather(1, order).tolist()
        for policy in POLICIES:
            values = [defined(policy, row, at) for row in ranked]
            ours = compat_map(policy, *case.parts, at=at, order=None if name == "stable" else order)
            if None in values:
                assert np.isnan(ours)
            else:
                mean = float(sum(values, Fraction(0)) / len(values))
                assert ours == pytest.approx(mean, rel=RELATIVE)


@same_cases(100)
@given(case=sides(values=(-1, 0, 1), most_rows=5), at=st.none() | st.integers(1, 6))
def test_extreme_orders_bound_every_permutation(case, at):
    """Of AP over the first k relevant rows: the worst and best order are those of the relevance."""
    assume((case.query < 0).any() or (case.database < 0).any())
    bounds = []
    for distances, relevant in case.queries():
        bounds.append(
            oracle.over_orders(distances, relevant, lambda row: oracle.first_k(row, at))[1:]
        )
    distances = torch.tensor([[float(d) for d in row] for row, _ in case.queries()])
    relevant = torch.tensor([row for _, row in case.queries()]).int()
    for side, which in ((0, 1), (1, -1)):
        order = stable_order(4 * distances + which * relevant)
        mean = float(sum(bound[side] for bound in bounds) / len(bounds))
        assert compat_map("mith", *case.parts, at=at, order=order) == pytest.approx(
            mean, rel=RELATIVE
        )


@same_cases(50)
@given(case=sides(values=(-1, 0, 1)))
def test_curves_of_the_stable_order(case):
    assume((case.query < 0).any() or (case.database < 0).any())
    ranked = [
        [hit for _, hit in sorted(zip(*pair, strict=True), key=lambda both: both[0])]
        for pair in case.queries()
    ]
    answered = [row for row in ranked if any(row)]
    ranks = range(1, len(case.label) + 1)
    all_of_them = deephash_precision_recall(*case.parts, list(ranks))
    with_answer = deephash_curve(*case.parts)
    for t in ranks:
        precision = sum(Fraction(sum(row[:t]), t) for row in answered)
        recall = sum((Fraction(sum(row[:t]), sum(row)) for row in answered), Fraction(0))
        for curve, n in ((all_of_them, len(ranked)), (with_answer, len(answered))):
            if n:
                assert float(curve.precision[t - 1]) == pytest.approx(float(precision / n))
                assert float(curve.recall[t - 1]) == pytest.approx(float(recall / n))
            else:
                assert torch.isnan(curve.recall).all()
