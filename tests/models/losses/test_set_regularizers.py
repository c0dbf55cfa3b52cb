"""Diversity and mean discrepancy against loops over pairs, and their gradients at equal points."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from models.losses.set_regularizers import diversity, mean_discrepancy


def unit_sets(rows, members, width, dtype=torch.float64, seed=0):
    sets = torch.randn(rows, members, width, generator=torch.Generator().manual_seed(seed))
    return F.normalize(sets.to(dtype), dim=2)


def potential(points, t):
    pairs = itertools.combinations(points, 2)
    return sum(math.exp(-t * float((a - b).pow(2).sum())) for a, b in pairs)


@pytest.mark.parametrize(("rows", "members", "width"), [(4, 3, 2), (1, 5, 8), (3, 2, 1)])
def test_diversity_sums_over_pairs(rows, members, width):
    sets = unit_sets(rows, members, width)
    pairs = members * (members - 1) / 2
    flattened = potential(sets.flatten(0, 1), 3.0) / pairs
    per_set = sum(potential(points, 3.0) for points in sets) / rows / pairs
    assert float(diversity(sets, 3.0, "flattened")) == pytest.approx(flattened, rel=1e-12)
    assert float(diversity(sets, 3.0, "per_set")) == pytest.approx(per_set, rel=1e-12)


@pytest.mark.parametrize("form", ["flattened", "per_set"])
def test_a_set_of_one_member_has_no_pair(form):
    sets = unit_sets(4, 1, 3).requires_grad_()
    value = diversity(sets, 20.0, form)
    value.backward()
    assert value == 0 and bool((sets.grad == 0).all())


def test_a_small_potential_keeps_its_digits_in_float32():
    sets = torch.eye(64).reshape(8, 8, 64)  # all distances √2: e^-40 for each pair
    expected = 64 * 63 / 2 * math.exp(-40) / 28
    assert float(diversity(sets, 20.0, "flattened")) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("form", ["flattened", "per_set"])
def test_gradients_of_diversity_where_members_coincide(form):
    raw = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    raw[:, 1] = 2 * raw[:, 0]  # one direction
    raw.requires_grad_()
    ours = diversity(F.normalize(raw, dim=2), 20.0, form)
    (gradient,) = torch.autograd.grad(ours, raw)
    points = F.normalize(raw, dim=2)
    if form == "flattened":
        points = points.flatten(0, 1)[None]
    squares = (points[:, :, None] - points[:, None]).pow(2).sum(3)  # smooth everywhere
    upper = (-20 * squares).exp().triu(1).sum((1, 2))
    expected = upper.mean() / 6
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    (wanted,) = torch.autograd.grad(expected, raw)
    torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-12)
    all_alike = torch.ones(2, 3, 4, dtype=torch.float64, requires_grad=True)
    diversity(F.normalize(all_alike, dim=2), 20.0, form).backward()
    torch.testing.assert_close(all_alike.grad, torch.zeros_like(all_alike))


@pytest.mark.parametrize(("rows", "others", "width"), [(5, 7, 3), (1, 1, 1)])
def test_mean_discrepancy_is_that_of_unsquared_distances(rows, others, width):
    first, second = unit_sets(rows, 1, width)[:, 0], unit_sets(others, 1, width, seed=1)[:, 0]

    def mean(a, b):
        kernel = [math.exp(-0.5 * float((x - y).norm())) for x in a for y in b]
        return sum(kernel) / len(kernel)

    expected = mean(first, first) - 2 * mean(first, second) + mean(second, second)
    assert float(mean_discrepancy(first, second, 0.5)) == pytest.approx(expected, abs=1e-14)
    assert float(mean_discrepancy(first, first, 0.5)) == pytest.approx(0, abs=1e-15)


def test_mean_discrepancy_has_a_finite_gradient_at_equal_points_and_digits_above_25_rows():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(40, 6, generator=generator) for _ in range(2))
    second[:5] = first[:5]
    first[7] = first[6]
    gradients = []
    for dtype in (torch.float32, torch.float64):
        a, b = (x.to(dtype).requires_grad_() for x in (first, second))
        gradients.append(torch.autograd.grad(mean_discrepancy(a, b, 0.5), (a, b)))
    for single, double in zip(*gradients, strict=True):
        assert bool(single.isfinite().all())
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-8)
    together = torch.ones(3, 4, requires_grad=True)
    mean_discrepancy(together, together.detach(), 0.5).backward()
    assert bool((together.grad == 0).all())
