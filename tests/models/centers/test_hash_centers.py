"""Hash centres: every recipe for any number of classes and bits; the distances they keep."""

from __future__ import annotations

import itertools

import pytest
import torch

from models.centers import hash_centers as centers_module
from models.centers.hash_centers import (
    REDRAWS,
    balanced_rows,
    center_distances,
    centroid_vote,
    far_apart,
    hadamard_centers,
    hadamard_matrix,
    random_signs,
    spread_centers,
)
from models.centers.recipes import make_centers

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


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_spread_centers_are_the_first_draws_that_fit(seed, monkeypatch):
    classes, bits, most = 20, 12, 50
    monkeypatch.setattr(centers_module, "SPREAD_TRIES", most)
    drawn, kept, percent, tries = generator(seed), [], 61, most
    while len(kept) < classes:
        for row in centers_module.random_signs(min(tries, 1000), bits, drawn):
            apart = [int((row != other).sum()) for other in kept]
            if len(kept) < classes and all(d >= percent * bits / 100 for d in apart):
                kept.append(row)
            else:
                tries -= 1
        if tries == 0:
            percent, tries = percent - 1, most
    assert torch.equal(spread_centers(classes, bits, generator(seed)), torch.stack(kept))


def redrawn(classes, bits, seed):
    """Return CSQ's centres by its rule, word for word."""
    drawn, fixed = generator(seed), torch.empty(0, bits)
    if bits & (bits - 1) == 0:
        fixed = torch.cat([hadamard_matrix(bits), -hadamard_matrix(bits)])[:classes]
    for _ in range(REDRAWS):
        found = torch.cat([fixed, balanced_rows(classes - len(fixed), bits, drawn)])
        pairs = list(itertools.combinations(found, 2))
        apart = [float((a != b).sum()) for a, b in pairs] or [float(bits)]
        if min(apart) > bits / 4 and sum(apart) / len(apart) >= bits / 2:
            break
    return found


@pytest.mark.parametrize(
    ("classes", "bits"), [(1, 3), (3, 6), (7, 2), (12, 4), (38, 16), (20, 48), (40, 8), (50, 6)]
)
def test_hadamard_centers_are_redrawn_by_the_rule(classes, bits):
    for seed in range(2):
        ours = hadamard_centers(classes, bits, generator(seed))
        assert torch.equal(ours, redrawn(classes, bits, seed))


def test_draws_that_are_not_looked_at_change_nothing(monkeypatch):
    kinds = [(100, 8), (300, 16), (400, 30)]  # where none can be expected to pass
    assert all(centers_module._expected_close_pairs(c, 0, k) > 50 for c, k in kinds)
    blind = [hadamard_centers(c, k, generator(c)) for c, k in kinds]
    monkeypatch.setattr(centers_module, "HOPELESS", float("inf"))
    for (c, k), ours in zip(kinds, blind, strict=True):
        assert torch.equal(ours, hadamard_centers(c, k, generator(c)))


@pytest.mark.parametrize("bits", [3, 8, 9])
def test_the_expected_number_of_close_pairs(bits):
    codes = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=bits)))
    codes = codes[(codes < 0).sum(1) == bits // 2]
    close = ((bits - codes @ codes.T) / 2 <= bits / 4).float().mean().item()
    expected = centers_module._expected_close_pairs(5, 2 * bits, bits)
    assert expected == pytest.approx(close * (10 + 5 * (2 * bits - 2)))


@pytest.mark.parametrize("block", [1, 7, 30, 10**6])
def test_distances_in_blocks(block, monkeypatch):
    monkeypatch.setattr(centers_module, "_BLOCK", block)
    for count, bits in [(2, 1), (5, 3), (11, 6)]:
        codes = make_centers("bernoulli", count, bits, generator(count))
        apart = [float((a != b).sum()) for a, b in itertools.combinations(codes, 2)]
        smallest, mean = center_distances(codes)
        assert smallest == min(apart) and mean == pytest.approx(sum(apart) / len(apart))
        for bound in (-1, min(apart), min(apart) - 0.5):
            assert far_apart(codes, bound) == (min(apart) > bound and mean >= bits / 2)
    assert center_distances(torch.ones(1, 5)) == (5.0, 5.0) and far_apart(torch.ones(1, 5), 4)


def test_of_forty_thousand_classes_no_draw_is_tested(monkeypatch):
    monkeypatch.setattr(centers_module, "far_apart", lambda *_: pytest.fail("a draw was tested"))
    ours = hadamard_centers(40_000, 64, generator())
    assert ours.shape == (40_000, 64) and bool((ours.sum(1)[128:] == 0).all())


@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_classes_take_few_draws(kind, monkeypatch):
    drawn = []
    draw = centers_module.random_signs

    def counting(rows, *arguments):
        drawn.append(rows)
        return draw(rows, *arguments)

    monkeypatch.setattr(centers_module, "random_signs", counting)
    make_centers(kind, 1000, 64, generator())
    # a thousand at a time; each per cent of K may reject ten thousand
    most = (centers_module.SPREAD_START + 1) * centers_module.SPREAD_TRIES
    assert sum(drawn) <= most + 1000 and len(drawn) <= most // 1000 + 1000


def test_the_vote_of_labels_is_that_of_a_loop():
    centers, tie_break = random_signs(5, 12, generator()), random_signs(1, 12, generator(1))[0]
    label = torch.tensor([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 1, 0], [0] * 5, [1] * 5])
    found = centroid_vote(label.float(), centers, tie_break)
    ties = 0
    for row, chosen in zip(found.tolist(), label.bool().tolist(), strict=True):
        for k, value in enumerate(row):
            votes = sum(float(c[k]) for c, has in zip(centers, chosen, strict=True) if has)
            ties += votes == 0
            assert value == (tie_break[k] if votes == 0 else (1 if votes > 0 else -1))
    assert ties > 12, "the toy should have ties beside those of the row without labels"
