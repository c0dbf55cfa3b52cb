"""Centres that keep a distance: bounds, figures and the search, against enumeration and loops."""

import itertools
import math
from fractions import Fraction

import pytest
import torch

from models.centers.hash_centers import center_distances, hadamard_centers
from models.centers.recipes import make_centers
from models.centers.semantic import (
    center_report,
    gilbert_varshamov,
    mds_centers,
    most_distance,
    semantic_centers,
    separated_codes,
    sphere_packing,
)
from utils.errors import UserError

SIZES = [(1, 1), (3, 2), (4, 4), (5, 7), (10, 12), (40, 16), (100, 24)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def similarity_of(classes, seed=0):
    """Return an asymmetric similarity with groups, as stage 1 gives them."""
    features = torch.randn(classes, 6, generator=generator(seed)).double()
    features += 2 * features[torch.arange(classes) // 3 * 3]
    like = (features @ features.T / 4).fill_diagonal_(-torch.inf).softmax(1)
    like = like - like.mean(1, keepdim=True)
    return (like / like.abs().amax(1, keepdim=True)).fill_diagonal_(1)


def objective(centers, similarity):
    bits = centers.shape[1]
    terms = [
        (float(similarity[i, j]) - float(centers[i] @ centers[j]) / bits) ** 2
        for i in range(len(centers))
        for j in range(len(centers))
    ]
    return sum(terms) / len(terms)


def every_set(classes, bits):
    """Yield all sets of codes, up to flipping bits in all codes: the first is all ones."""
    codes = torch.tensor(list(itertools.product([1.0, -1.0], repeat=bits)))
    for chosen in itertools.product(range(len(codes)), repeat=classes - 1):
        yield codes[[0, *chosen]]


@pytest.mark.parametrize(("classes", "bits"), SIZES)
def test_bounds_follow_their_definitions(classes, bits):
    def ball(radius):
        return sum(math.comb(bits, i) for i in range(radius + 1)) if radius >= 0 else 0

    found = gilbert_varshamov(bits, classes)
    assert ball(found - 1) * classes >= 2**bits > ball(found - 2) * classes
    packed = sphere_packing(bits, classes)
    assert ball((packed - 1) // 2) * classes <= 2**bits
    assert packed == bits + 1 or ball(packed // 2) * classes > 2**bits


def test_the_distances_stated_for_shc():
    stated = {100: (4, 10, 24, 52), 196: (4, 10, 23, 51), 555: (3, 9, 21, 49), 80: (5, 11, 24, 52)}
    for classes, distances in stated.items():
        assert tuple(gilbert_varshamov(b, classes) for b in (16, 32, 64, 128)) == distances


@pytest.mark.parametrize("bits", [1, 4, 8, 12, 64])
@pytest.mark.parametrize("classes", [1, 2, 3, 16, 17, 255, 256, 257, 555, 5000])
def test_bounds_by_a_search_over_every_distance(classes, bits):
    ratio = Fraction(2**bits, classes)
    ball = [sum(math.comb(bits, i) for i in range(r + 1)) for r in range(-1, bits + 2)]  # V(r-1)
    allowed = [d for d in range(bits + 2) if ball[(d - 1) // 2 + 1] <= ratio]
    assert sphere_packing(bits, classes) == max(allowed)
    crossed = [d for d in range(1, bits + 2) if ball[d] >= ratio > ball[d - 1]]
    assert [gilbert_varshamov(bits, classes)] == crossed


def test_more_classes_than_codes():
    assert gilbert_varshamov(8, 555) == 1 and sphere_packing(8, 555) == 0
    assert most_distance(8, 555) == 0 and most_distance(8, 256) >= 1
    ours = semantic_centers(similarity_of(20), 4, generator(), effort=1e-3)
    assert ours.shape == (20, 4) and center_distances(ours)[0] == 0
    shared = center_report(ours, similarity_of(20))
    mixed = ours[torch.randperm(20, generator=generator())]
    assert shared.objective < center_report(mixed, similarity_of(20)).objective


@pytest.mark.parametrize(("classes", "bits"), [(2, 3), (3, 3), (4, 3), (3, 4), (4, 4)])
def test_distances_are_the_largest_there_are(classes, bits):
    largest = max(center_distances(codes)[0] for codes in every_set(classes, bits))
    assert most_distance(bits, classes) >= largest
    assert center_distances(mds_centers(classes, bits, generator()))[0] == largest
    assert center_distances(separated_codes(classes, bits, bits, generator()))[0] == largest


@pytest.mark.parametrize("distance", [0, 1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_fit_is_the_best_there_is(distance, seed):
    similarity = similarity_of(4, seed)
    allowed = [c for c in every_set(4, 4) if center_distances(c)[0] >= distance]
    best = min(objective(codes, similarity) for codes in allowed)
    ours = semantic_centers(similarity, 4, generator(seed), distance=distance, effort=1e-3)
    assert center_distances(ours)[0] >= distance
    assert objective(ours, similarity) == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize(("classes", "bits"), [(10, 32), (10, 64), (12, 24), (20, 32), (100, 16)])
def test_semantic_centers_fit_better_than_others_at_their_distance(classes, bits):
    similarity = similarity_of(classes)
    ours = semantic_centers(similarity, bits, generator(), effort=0.1)
    report = center_report(ours, similarity)
    assert report.min >= gilbert_varshamov(bits, classes)
    mixed = ours[torch.randperm(classes, generator=generator())]
    for other in (hadamard_centers(classes, bits, generator()), mixed):
        assert report.objective < 0.8 * center_report(other, similarity).objective
    assert report.correlation > 0.3


@pytest.mark.parametrize(
    ("classes", "bits", "asked"), [(10, 16, 16), (20, 8, 7), (9, 3, 3), (2, 5, 5)]
)
def test_a_distance_out_of_reach_still_leaves_a_fit(classes, bits, asked):
    similarity = similarity_of(classes)
    ours = semantic_centers(similarity, bits, generator(), distance=asked, effort=0.05)
    apart = mds_centers(classes, bits, generator(), effort=0.05)
    reached = center_distances(ours)[0]
    assert reached == center_distances(apart)[0] <= most_distance(bits, classes)
    assert objective(ours, similarity) <= objective(apart, similarity)


@pytest.mark.parametrize("kind", ["mds", "shc"])
@pytest.mark.parametrize(("classes", "bits"), [(1, 1), (1, 8), (2, 1), (5, 1), (7, 2), (6, 12)])
def test_any_sizes_and_the_seed(kind, classes, bits):
    similarity = similarity_of(classes) if classes > 2 else torch.eye(classes)
    if kind == "shc":
        sets = [semantic_centers(similarity, bits, generator(s)) for s in (0, 0, 1)]
    else:
        sets = [make_centers(kind, classes, bits, generator(s)) for s in (0, 0, 1)]
    assert sets[0].shape == (classes, bits) and sets[0].dtype == torch.float32
    assert set(sets[0].unique().tolist()) <= {-1.0, 1.0}
    assert torch.equal(sets[0], sets[1])
    if classes == 6:
        assert not torch.equal(sets[0], sets[2])


def test_mds_centers_lie_no_closer_than_those_of_hadamard():
    for classes, bits in ((10, 16), (30, 16), (10, 20), (4, 32)):
        ours = center_distances(mds_centers(classes, bits, generator(), effort=0.05))
        hadamard = center_distances(hadamard_centers(classes, bits, generator()))
        assert ours[0] >= hadamard[0]
    assert center_distances(mds_centers(2, 16, generator()))[0] == 16


def test_a_repulsion_moves_centers_apart():
    similarity = similarity_of(12)
    means = []
    for mu in (0.0, 0.01, 0.1):
        centers = semantic_centers(similarity, 16, generator(), mu=mu, effort=0.05)
        means.append(center_distances(centers)[1])
    assert means[0] < means[1] <= means[2]


def test_what_is_refused():
    for shape in ((3, 4), (3,), (0, 0)):
        with pytest.raises(UserError, match="not accepted; \\[C,C\\] is needed"):
            semantic_centers(torch.zeros(shape), 8, generator())
    with pytest.raises(UserError, match="NaN or infinite"):
        semantic_centers(torch.full((3, 3), torch.nan), 8, generator())
    with pytest.raises(UserError, match="a distance of 9; give 0 to 8"):
        semantic_centers(torch.eye(3), 8, generator(), distance=9)


def test_figures_against_loops():
    similarity, centers = similarity_of(6), hadamard_centers(6, 8, generator()).clone()
    centers[2, :3] *= -1
    report = center_report(centers, similarity)
    distances, wanted, given = [], [], []
    for i in range(6):
        for j in range(i + 1, 6):
            distances.append(float((centers[i] != centers[j]).sum()))
            wanted.append(float(similarity[i, j]))
            given.append(float(centers[i] @ centers[j]) / 8)
    assert (report.min, report.max) == (min(distances), max(distances))
    mean = sum(distances) / 15
    assert report.mean == pytest.approx(mean)
    assert report.variance == pytest.approx(sum((d - mean) ** 2 for d in distances) / 15)
    assert report.objective == pytest.approx(objective(centers, similarity))
    assert report.correlation == pytest.approx(
        float(torch.corrcoef(torch.tensor([wanted, given], dtype=torch.float64))[0, 1])
    )
    alone = center_report(centers[:1], similarity[:1, :1])
    assert (alone.min, alone.mean, alone.objective) == (8, 8, 0) and math.isnan(alone.correlation)
