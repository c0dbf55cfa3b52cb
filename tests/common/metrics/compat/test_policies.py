import dataclasses
import math

import numpy as np
import pytest
import torch

from common.metrics.compat import rankings
from common.metrics.compat.curves import (
    dchmt_curve_by_radius,
    dchmt_precision_within,
    dchmt_topn_precision,
    deephash_curve,
    deephash_precision_recall,
)
from common.metrics.compat.policies import POLICIES, compat_map
from utils.errors import UserError


def ladder(relevant, bits=8):
    """One query of class 1; row i has distance i and class 1 where ``relevant``."""
    rows = np.ones((len(relevant), bits), np.int8)
    for i, row in enumerate(rows):
        row[:i] = -1
    return np.ones((1, bits), np.int8), np.array([1]), rows, np.array(relevant)


def random_sides(queries=7, rows=60, bits=12, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = [rng.integers(0, 2, (n, classes)) for n in (queries, rows)]
    codes = [rng.choice([-1, 1], (n, bits)) for n in (queries, rows)]
    return codes[0], labels[0], codes[1], labels[1]


def test_what_k_cuts():
    sides = ladder([0, 1, 0, 0, 1, 0])
    for name in ("kalenforn", "dchmt", "mith"):
        assert compat_map(name, *sides) == pytest.approx((1 / 2 + 2 / 5) / 2)
        assert compat_map(name, *sides, at=1) == 1 / 2  # wherever it ranks
        assert compat_map(name, *sides, at=100) == compat_map(name, *sides)
    for name in ("deephash", "fire"):
        assert compat_map(name, *sides) == pytest.approx((1 / 2 + 2 / 5) / 2)
        assert compat_map(name, *sides, at=1) == 0
        assert compat_map(name, *sides, at=4) == 1 / 2
        assert compat_map(name, *sides, at=100) == compat_map(name, *sides)


def test_minus_one_leaves_out_the_farthest_row_in_deephash_alone():
    sides = ladder([0, 1, 0, 1])
    assert compat_map("deephash", *sides, at=-1) == 1 / 2
    assert compat_map("deephash", *ladder([1]), at=-1) == 0
    for name in set(POLICIES) - {"deephash"}:
        with pytest.raises(UserError, match="k = -1"):
            compat_map(name, *sides, at=-1)
    for at in (0, -2):
        with pytest.raises(UserError, match="or -1 for all but"):
            compat_map("deephash", *sides, at=at)


def test_a_query_without_a_relevant_row():
    query, label, rows, labels = ladder([0, 1, 0, 0])
    both = np.repeat(query, 2, 0), np.array([1, 2]), rows, labels
    for name in ("kalenforn", "dchmt"):
        assert math.isnan(compat_map(name, *both))
        assert math.isnan(compat_map(name, *both, at=1))
    for name in ("mith", "deephash", "fire"):
        assert compat_map(name, *both) == 1 / 4
    old = dataclasses.replace(POLICIES["fire"], unanswered="skip")
    assert compat_map(old, *both) == 1 / 2
    assert math.isnan(compat_map(old, query, np.array([2]), rows, labels))


def test_zeros_count_half_a_bit():
    query = np.array([[1.0, 1.0, 1.0]])
    rows = np.array([[1.0, 1.0, -1.0], [1.0, 1.0, 0.0], [1.0, -1.0, 0.0]])  # 1, 1/2, 3/2
    sides = query, np.array([1]), rows, np.array([1, 0, 0])
    for name in POLICIES:
        assert compat_map(name, *sides) == 1 / 2
        assert compat_map(name, *sides, order=[[0, 1, 2]]) == 1.0
        assert compat_map(name, *sides, order=torch.tensor([[2, 1, 0]])) == pytest.approx(1 / 3)


def test_fire_takes_signs_and_the_others_values_as_they_are():
    query, rows = np.array([[0.1, 5.0]]), np.array([[-9.0, 1.0], [0.2, -0.1]])
    sides = query, np.array([1]), rows, np.array([0, 1])  # inner products 4.1 and -0.48
    assert compat_map("mith", *sides) == 1 / 2
    assert compat_map("fire", *sides) == 1 / 2  # both at distance 1, by row number
    assert compat_map("fire", query, np.array([0]), rows, np.array([0, 1])) == 1.0
    assert (
        compat_map("fire", query, np.array([0]), np.array([[-9.0, -1], [0.2, -1]]), [0, 1]) == 0.5
    )


@pytest.mark.parametrize("zero_mean", [False, True])
@pytest.mark.parametrize("distance", ["hamming", "cosine", "euclidean"])
def test_distances_of_fire_equal_loops(distance, zero_mean):
    rng = np.random.default_rng(3)
    query, rows = rng.normal(0.3, 1, (3, 9)), rng.normal(0.3, 1, (30, 9))
    classes, row_classes = rng.integers(0, 3, 3), rng.integers(0, 3, 30)
    policy = dataclasses.replace(POLICIES["fire"], distance=distance, zero_mean=zero_mean)
    centre = rows.mean(0) if zero_mean else np.zeros(9)
    aps = []
    for code, number in zip(query - centre, classes, strict=True):
        far = []
        for row in rows - centre:
            if distance == "hamming":
                far.append((9 - np.sign(code) @ np.sign(row)) / 2)
            elif distance == "cosine":
                far.append(-code @ row / np.linalg.norm(code) / np.linalg.norm(row))
            else:
                far.append(((code - row) ** 2).sum())
        hit = [row_classes[i] == number for i in np.argsort(far, kind="stable")[:10]]
        ranks = np.flatnonzero(hit) + 1
        aps.append((np.arange(1, len(ranks) + 1) / ranks).mean() if len(ranks) else 0.0)
    ours = compat_map(policy, query, classes, rows, row_classes, at=10)
    assert ours == pytest.approx(np.mean(aps), rel=1e-12)


def all_maps(sides, **options):
    return [compat_map(name, *sides, at=9, **options) for name in POLICIES]


def every_number(sides, **options):
    numbers = all_maps(sides, **options)
    for part in (
        *deephash_curve(*sides, **options),
        *deephash_precision_recall(*sides, [1, 60, 7], **options),
        dchmt_topn_precision(*sides, **options),
        dchmt_precision_within(*sides, **options),
    ):
        numbers += part.tolist()
    return numbers


def test_blocks_kinds_of_input_and_a_given_order_change_nothing(monkeypatch):
    codes, labels, rows, row_labels = sides = random_sides()
    labels[:, 0] = row_labels[5, 0] = 1  # every query has a relevant row
    whole = every_number(sides)
    assert len(whole) == 5 + 2 * 60 + 2 * 3 + 50 + 12
    for queries in (1, 3):  # of a block
        memory_mb = queries * 60 * 64 / 2**20
        assert all_maps(sides, memory_mb=memory_mb) == pytest.approx(whole[:5], rel=1e-12)
        with monkeypatch.context() as patch:
            patch.setattr(rankings, "_BYTES_PER_PAIR", 2**28 // (queries * 60))
            assert every_number(sides) == pytest.approx(whole, rel=1e-12)
    assert all_maps(sides, memory_mb=1e-9) == pytest.approx(whole[:5], rel=1e-12)
    tensors = (
        torch.tensor(codes, dtype=torch.bfloat16).requires_grad_(),
        torch.from_numpy(labels).double(),
        torch.from_numpy(rows > 0),
        torch.from_numpy(row_labels).bool(),
    )
    assert every_number(tensors) == whole
    order = np.argsort(-codes @ rows.T, axis=1, kind="stable")
    assert every_number(sides, order=order) == whole
    assert every_number(sides, order=torch.from_numpy(order.astype(np.int16))) == whole


def test_class_numbers_equal_one_hot():
    rng = np.random.default_rng(2)
    codes, _, rows, _ = random_sides()
    classes, row_classes = rng.integers(0, 4, 7), rng.integers(0, 4, 60)
    one_hot = np.eye(4)
    assert every_number((codes, classes, rows, row_classes)) == every_number(
        (codes, one_hot[classes], rows, one_hot[row_classes])
    )


def test_curves_over_queries_with_and_without_an_answer():
    query, _, rows, labels = ladder([0, 1, 0, 1])
    both = np.repeat(query, 2, 0), np.array([1, 2]), rows, labels
    curve = deephash_curve(*both)
    assert curve.precision.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert curve.recall.tolist() == [0, 1 / 2, 1 / 2, 1]
    points = deephash_precision_recall(*both, [4, 2])
    assert points.precision.tolist() == [1 / 4, 1 / 4]
    assert points.recall.tolist() == [1 / 2, 1 / 4]
    assert deephash_curve(query, [2], rows, labels).precision.isnan().all()
    with pytest.raises(UserError, match=r"Rank 5 is outside of 1\.\.4"):
        deephash_precision_recall(*both, [1, 5])


def test_topn_floors_the_rounded_product():
    rng = np.random.default_rng(4)
    relevant = rng.integers(0, 2, 60)
    sides = ladder(relevant, bits=64)
    rows = [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 18]  # 11, not 12: 60·0.19999…
    expected = [relevant[:n].mean() for n in rows]
    ours = dchmt_topn_precision(*sides)
    assert ours.shape == (50,)
    assert ours[:15].tolist() == pytest.approx(expected)
    assert float(ours[-1]) == pytest.approx(relevant.mean())
    query, label, codes, labels = sides
    assert torch.equal(dchmt_topn_precision((query > 0) * 1, label, (codes > 0) * 1, labels), ours)
    with pytest.raises(UserError, match="at least 50"):
        dchmt_topn_precision(*ladder([1, 0]))


def test_released_recall_counts_what_is_retrieved():
    query, label, rows, labels = ladder([0, 1, 0, 1])
    curve = dchmt_curve_by_radius(query, label, rows, labels)
    assert curve.precision.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert curve.recall.tolist() == [1 / 2, 1, 3 / 2, 2]  # up to the largest distance, 3 of 8
    with pytest.raises(UserError, match="No query shares"):
        dchmt_curve_by_radius(query, [2], rows, labels)


def test_a_single_row_within_the_radius_counts_as_two():
    query, label, rows, labels = ladder([0, 1, 0, 0], bits=4)
    rows = -rows[::-1]  # distances 1, 2, 3, 4 in the order of the rows, relevant the second
    released = dchmt_precision_within(query, label, rows, labels)
    assert released.tolist() == pytest.approx([1 / 2, 1 / 2, 1 / 3, 1 / 4])
    assert dchmt_precision_within(query, label, rows[:1], labels[:1] + 1).tolist() == [1 / 2] * 4


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"dc": np.ones((60, 16))}, "12 bits"),
        ({"dl": np.ones((60, 5))}, "4 classes and database labels 5"),
        ({"dl": np.zeros(60, int)}, "the database class numbers"),
        ({"ql": np.ones((4, 4))}, "7 rows of codes and 4"),
        ({"qc": np.ones((0, 12)), "ql": np.ones((0, 4))}, "at least one row"),
        ({"dc": np.ones((60, 0))}, "at least one row"),
        ({"qc": np.ones(12)}, r"\[N,K\]"),
        ({"qc": np.full((7, 12), np.nan)}, "query codes hold NaN"),
        ({"dc": np.full((60, 12), np.inf)}, "database codes hold NaN or inf"),
        ({"dc": np.ones((60, 12), np.uint8)}, "perhaps packed"),
        ({"qc": np.full((7, 12), "a")}, "no array of numbers"),
        ({"qc": np.zeros((7, 12)), "dc": np.ones((60, 12))}, "nothing but 0 and 1"),
        ({"ql": np.full((7, 4), 3)}, "In the query: .*other than 0 and 1"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change, word):
    inputs = dict(zip(("qc", "ql", "dc", "dl"), random_sides(), strict=True))
    inputs.update(change)
    with pytest.raises(UserError, match=word):
        compat_map("fire", *inputs.values())


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"policy": "deephahs"}, "Did you mean 'deephash'"),
        ({"at": 0}, "k = 0"),
        ({"memory_mb": 0}, "memory_mb"),
        ({"order": np.zeros((7, 59), int)}, r"\[7,60\] integers"),
        ({"order": np.zeros((7, 60))}, r"\[7,60\] integers"),
        ({"order": np.zeros((7, 60), int)}, "each of the rows 0..59 once"),
        ({"order": np.arange(420).reshape(7, 60)}, "each of the rows 0..59 once"),
    ],
)
def test_wrong_options_are_refused(options, word):
    options = {"policy": "mith", **options}
    with pytest.raises(UserError, match=word):
        compat_map(options.pop("policy"), *random_sides(), **options)
