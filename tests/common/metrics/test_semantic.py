"""NDCG by the similarity of classes against every order of tied rows."""

import itertools
import math

import numpy as np
import pytest
import torch

from common.metrics import build_histograms, ndcg_at, pack_rows, semantic_ndcg
from utils.errors import UserError


def expected_ndcg(distances, gains, cut):
    """The mean over all permutations of tied rows, straight from the definition."""
    groups = [
        [g for d, g in zip(distances, gains, strict=True) if d == level]
        for level in sorted(set(distances))
    ]

    def dcg(ranked):
        return math.fsum(g / math.log2(t + 1) for t, g in enumerate(ranked[:cut], start=1))

    orders = itertools.product(*(list(itertools.permutations(group)) for group in groups))
    values = [dcg([g for group in order for g in group]) for order in orders]
    best = dcg(sorted(gains, reverse=True))
    return sum(values) / len(values) / best if best else 0.0


@pytest.mark.parametrize("seed", range(20))
def test_every_order_of_tied_rows(seed):
    rng = np.random.default_rng(seed)
    bits, classes = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    codes = [rng.choice([-1, 1], (n, bits)) for n in (3, 6)]
    labels = [rng.integers(0, classes, n) for n in (3, 6)]
    alike = rng.choice([0, 0.25, 0.5, 1], (classes, classes))
    sides = [pack_rows(c, y) for c, y in zip(codes, labels, strict=True)]
    for cut in (None, 1, 3, 9):
        ours = semantic_ndcg(*sides, alike, cut)
        for q in range(3):
            distances = ((bits - codes[1] @ codes[0][q]) // 2).tolist()
            gains = alike[labels[0][q], labels[1]].tolist()
            reference = expected_ndcg(distances, gains, 6 if cut is None else min(cut, 6))
            assert float(ours[q]) == pytest.approx(reference, abs=1e-12)


def test_with_the_identity_it_is_binary_ndcg():
    rng = np.random.default_rng(0)
    codes, labels = rng.choice([-1, 1], (200, 12)), rng.integers(0, 7, 200)
    one_hot = np.eye(7, dtype=int)[labels]
    reference = ndcg_at(build_histograms(codes[:9], labels[:9], codes, labels), 50)
    for form in (labels, one_hot):
        rows = pack_rows(codes, form)
        ours = semantic_ndcg(rows.select(slice(0, 9)), rows, np.eye(7), 50)
        torch.testing.assert_close(ours, reference, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("labels", "similarity", "message"),
    [
        ([[1, 1], [1, 0]], np.eye(2), "Row 0 of the query has 2 labels"),
        ([0, 1], np.eye(1), r"shape \[1, 1\]; \[C,C\] for C = 2 or more"),
        ([0, 1], [[1, -1], [0, 1]], "below 0"),
        ([0, 1], [[1, math.nan], [0, 1]], "not finite"),
        ([0, 1], [["a"]], "no array of numbers"),
    ],
)
def test_what_is_refused(labels, similarity, message):
    rows = pack_rows([[1, -1], [1, 1]], labels)
    with pytest.raises(UserError, match=message):
        semantic_ndcg(rows, rows, similarity)
    with pytest.raises(UserError, match="at least 1"):
        semantic_ndcg(rows, rows, np.eye(2), 0)
