"""Set similarities against loops over pairs of sets, written from the equations."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from models.losses.set_similarity import (
    BagForm,
    bag_similarity,
    member_products,
    sequence_euclidean,
    sequence_similarity,
    smooth_chamfer,
)


def unit_sets(rows, members, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sets = torch.randn(rows, members, width, generator=generator, dtype=torch.float64)
    return F.normalize(sets, dim=2)


def one_pair(x, y, form, t=16.0, r=1.0, d=2.0):
    """The similarity of sets [M,K] and [N,K], member by member."""
    c = [[float(a @ b) for b in y] for a in x]
    columns = list(zip(*c, strict=True))
    if form == "max":
        return max(max(row) for row in c)
    if form == "avg":
        return sum(1 / (1 + math.exp(-v)) for row in c for v in row) / (len(x) * len(y))
    if form == "chamfer":
        return (sum(map(max, c)) / len(x) + sum(map(max, columns)) / len(y)) / d
    forth = sum(math.log(sum(math.exp(t * r * v) for v in row)) for row in c) / (len(x) * t * r)
    back = sum(math.log(sum(math.exp(t * v) for v in row)) for row in columns) / (len(y) * t)
    return (forth + back) / d


@pytest.mark.parametrize("form", get_args(BagForm))
@pytest.mark.parametrize(("a", "m", "b", "n", "k"), [(3, 4, 5, 2, 6), (1, 1, 1, 1, 1)])
def test_bags_are_those_of_the_equations(form, a, m, b, n, k):
    first, second = unit_sets(a, m, k, 1), unit_sets(b, n, k, 2)
    options = {"temperature": 8.0, "scale": 2.0, "denominator": 3.0}
    ours = bag_similarity(member_products(first, second), form, **options)
    expected = [[one_pair(x, y, form, 8.0, 2.0, 3.0) for y in second] for x in first]
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64))


def test_smooth_chamfer_exceeds_chamfer_by_at_most_the_logarithm():
    cosine = member_products(unit_sets(4, 5, 8, 1), unit_sets(6, 5, 8, 2))
    above = smooth_chamfer(cosine) - bag_similarity(cosine, "chamfer")
    assert bool((above >= 0).all()) and float(above.max()) <= math.log(5) / 16


def test_both_orders_are_one_matrix_unless_scaled():
    first, second = unit_sets(3, 4, 8, 1), unit_sets(5, 4, 8, 2)
    there, back = member_products(first, second), member_products(second, first)
    torch.testing.assert_close(smooth_chamfer(there), smooth_chamfer(back).mT)
    assert not torch.allclose(smooth_chamfer(there, scale=2), smooth_chamfer(back, scale=2).mT)


@pytest.mark.parametrize(("rows", "positions", "words"), [(4, 3, 2), (1, 1, 2), (2, 2, 16)])
def test_sequences_are_compared_position_by_position(rows, positions, words):
    first, second = unit_sets(rows, positions, words, 1), unit_sets(rows + 1, positions, words, 2)
    cosine = [[sum(max(float(p @ q), 0) for p, q in zip(a, b, strict=True)) / positions
               for b in second] for a in first]  # fmt: skip
    length = [[sum(float((p - q).norm()) for p, q in zip(a, b, strict=True)) / positions**2
               for b in second] for a in first]  # fmt: skip
    torch.testing.assert_close(sequence_similarity(first, second), torch.tensor(cosine).double())
    torch.testing.assert_close(sequence_euclidean(first, second), torch.tensor(length).double())


def test_euclidean_has_no_gradient_where_entries_coincide():
    entries = unit_sets(3, 4, 2).requires_grad_()
    distance = sequence_euclidean(entries, entries)
    assert bool((distance.diagonal() == 0).all())
    (gradient,) = torch.autograd.grad(distance.diagonal().sum(), entries)
    assert bool((gradient == 0).all())
