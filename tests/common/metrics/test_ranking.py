import numpy as np
import pytest

from common.metrics import average_precision_first_k
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


def test_the_ranking_is_not_cut_at_k():
    assert average_precision_first_k([[0, 1, 2, 3]], [[0, 0, 0, 1]], k=1).tolist() == [0.25]


def test_wrong_inputs_are_refused():
    with pytest.raises(UserError, match=r"\[Q,N\]"):
        average_precision_first_k([0, 1], [1, 0])
    with pytest.raises(UserError, match="at least 1"):
        average_precision_first_k([[0]], [[1]], k=0)
