import numpy as np
import pytest

from common.metrics.compat.average_precision import (
    average_precision_first_k,
    average_precision_in_top,
)
from tests.common.metrics import oracle
from utils.errors import UserError


def by_loop(order, relevant, k):
    ranks = [rank for rank, row in enumerate(order, start=1) if relevant[row]]
    counted = ranks if k is None else ranks[:k]
    return sum(j / rank for j, rank in enumerate(counted, start=1)) / max(1, len(counted))


@pytest.mark.parametrize("k", [None, 1, 3, 50])
def test_equals_the_loop(k):
    rng = np.random.default_rng(0)
    order = np.stack([rng.permutation(20) for _ in range(8)])
    relevant = rng.integers(0, 2, (8, 20))
    relevant[3] = 0
    ours = average_precision_first_k(order, relevant, k)
    expected = [by_loop(*pair, k) for pair in zip(order, relevant, strict=True)]
    assert ours.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("at", [None, 0, 1, 3, 20, 50])
def test_top_ranks_equal_the_loop(at):
    rng = np.random.default_rng(1)
    order = np.stack([rng.permutation(20) for _ in range(8)])
    relevant = rng.integers(0, 2, (8, 20))
    relevant[3] = 0
    ours = average_precision_in_top(order, relevant, at)
    expected = []
    for rows, marks in zip(order, relevant, strict=True):
        ranked = [bool(marks[row]) for row in rows]
        expected.append(float(oracle.ap_at(ranked, 20 if at is None else at, "retrieved")))
    assert ours.tolist() == pytest.approx(expected)


def test_the_ranking_is_not_cut_at_k():
    assert average_precision_first_k([[0, 1, 2, 3]], [[0, 0, 0, 1]], k=1).tolist() == [0.25]


def test_wrong_inputs_are_refused():
    with pytest.raises(UserError, match=r"\[Q,N\]"):
        average_precision_first_k([0, 1], [1, 0])
    with pytest.raises(UserError, match="at least 1"):
        average_precision_first_k([[0]], [[1]], k=0)
    with pytest.raises(UserError, match="from 0"):
        average_precision_in_top([[0]], [[1]], at=-1)
