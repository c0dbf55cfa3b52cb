"""Hash centres: every recipe for any number of classes and bits; the distances they keep."""

from __future__ import annotations

import time

import pytest
import torch

from models.centers import center_distances, make_centers, spread_centers

KINDS = ("hadamard", "balanced", "bernoulli", "spread")  # those that no search is made for


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("classes", "bits"), [(1, 1), (5, 1), (10, 16), (70, 48), (3, 64)])
def test_every_recipe_gives_codes_from_the_seed(kind, classes, bits):
    centers = make_centers(kind, classes, bits, generator())
    assert centers.shape == (classes, bits) and centers.dtype == torch.float32
    assert set(centers.unique().tolist()) <= {-1.0, 1.0}
    assert torch.equal(centers, make_centers(kind, classes, bits, generator()))


def test_spread_centers_lie_farther_apart_than_random_ones():
    for seed in range(3):
        spread = center_distances(spread_centers(10, 16, generator(seed)))[0]
        assert spread >= 7  # the least distance recorded of the released recipe for 10 classes
        assert spread > center_distances(make_centers("bernoulli", 10, 16, generator(seed)))[0]


def test_the_first_two_spread_centers_keep_the_first_distance():
    # ρ = 0.61 of 64 bits: 39.04, so 40 at least
    for seed in range(5):
        assert center_distances(spread_centers(2, 64, generator(seed)))[0] >= 40


def test_a_thousand_classes_take_no_while():
    start = time.perf_counter()
    for kind in set(KINDS) - {"mds"}:  # a search
        make_centers(kind, 1000, 64, generator())
    assert time.perf_counter() - start < 30  # some 2 s in one thread of an idle machine
