"""The annealing sweeps against sums recomputed from scratch for every move."""

import numpy as np
import pytest
import torch

from models.centers.annealing import (
    RESOLUTION,
    CodeSearch,
    exchange_in_place,
    geometric,
    sweep_in_place,
)
from models.centers.hash_centers import random_signs


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def toy(count=7, bits=6, seed=0):
    codes = random_signs(count, bits, generator(seed))
    wanted = bits * torch.rand(count, count, generator=generator(seed)) - 2
    return codes, (wanted * RESOLUTION / 2).round() * 2 / RESOLUTION  # so are their averages


def cost(codes, wanted, weight, limit, penalty):
    total = 0.0
    for i in range(len(codes)):
        for j in range(i):
            product = float(codes[i] @ codes[j])
            total += weight * (wanted[i, j] - product) ** 2
            total += penalty * max(product - limit, 0.0) ** 2
    return total


def moves(sweeps, count, bits, heat, seed=0):
    rng = np.random.default_rng(seed)
    size = (sweeps, count, bits)
    return (
        heat * rng.exponential(size=size),
        rng.integers(0, bits, size).astype(np.int32),
        rng.integers(0, 2 * bits, size).astype(np.int32),
    )


def swept(codes, wanted, penalties, drawn, weight, limit):
    """Return what the compiled loop's own source makes of it, as Python."""
    bits = codes.shape[1]
    transposed, products = codes.T.copy(), codes @ codes.T
    products[np.diag_indices(len(codes))] = -bits
    aim = wanted.copy()
    aim[np.diag_indices(len(codes))] = -bits
    sweep_in_place(transposed, products, aim, weight, limit, penalties, *drawn)
    return transposed.T, products


@pytest.mark.parametrize("bits", [1, 2, 6])
@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("heat", [0.0, 30.0])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_moves_are_taken_as_the_sum_says(bits, count, heat, weight):
    codes, wanted = toy(count, bits)
    codes = codes.double().numpy()
    wanted = ((wanted + wanted.T) / 2).double().numpy()
    limit, penalties = max(bits - 4.0, -bits), np.array([1.0, 5.0, 64.0])
    drawn = moves(3, count, bits, heat)
    found, products = swept(codes, wanted, penalties, drawn, weight, limit)
    ours = codes.copy()
    for s, penalty in enumerate(penalties):
        for i in range(count):
            for n in range(bits):
                tried = ours.copy()
                first, second = drawn[1][s, i, n], drawn[2][s, i, n]
                tried[i, first] *= -1
                if second < bits and second != first:
                    tried[i, second] *= -1
                before = cost(ours, wanted, weight, limit, penalty)
                if cost(tried, wanted, weight, limit, penalty) - before <= drawn[0][s, i, n]:
                    ours = tried
    assert (found == ours).all()
    others = ~np.eye(count, dtype=bool)
    assert (products == ours @ ours.T)[others].all()


def test_compiled_and_python_come_to_the_same():
    codes, wanted = toy(9, 8)
    wanted = (wanted + wanted.T) / 2
    search = CodeSearch(codes, wanted, 3, generator(4))
    search.sweep(1, [1, 10], [20.0, 0.0])
    draws, size = generator(4), (2, 9, 8)
    first = torch.randint(0, 8, size, generator=draws, dtype=torch.int32)
    second = torch.randint(0, 16, size, generator=draws, dtype=torch.int32)
    luck = torch.empty(size, dtype=torch.float64).exponential_(generator=draws)
    most = torch.tensor([20.0, 0.0])[:, None, None] * luck
    found, _ = swept(
        codes.double().numpy(), wanted.double().numpy(), np.array([1.0, 10.0]),
        (most.numpy(), first.numpy(), second.numpy()), 1.0, 8 - 6.0,
    )  # fmt: skip
    assert np.array_equal(search.codes.numpy(), found)


def test_figures_of_a_search():
    codes, wanted = toy()
    search = CodeSearch(codes, wanted, 3, generator())
    search.sweep(1, geometric(1, 64, 5), geometric(50, 1, 5))
    products = (search.codes @ search.codes.T).double()
    both = (wanted + wanted.T).double() / 2
    close, misfit = 0, 0.0
    for i in range(7):
        for j in range(7):
            if i != j:
                close += bool((6 - products[i, j]) / 2 < 3)
                misfit += float(both[i, j] - products[i, j]) ** 2
    assert search.too_close == close / 2
    assert search.misfit == pytest.approx(misfit)
    assert set(search.codes.unique().tolist()) <= {-1.0, 1.0}


def test_the_scale_is_the_deviation_of_single_flips():
    codes, wanted = toy()
    search = CodeSearch(codes, wanted, 0, generator())
    whole = ((wanted + wanted.T) / 2).double().numpy()
    before = cost(codes.double().numpy(), whole, 1, 6, 0)
    changes = []
    for i in range(7):
        for k in range(6):
            tried = codes.double().numpy()
            tried[i, k] *= -1
            changes.append(cost(tried, whole, 1, 6, 0) - before)
    assert search.scale == pytest.approx(np.std(changes), rel=1e-2)


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("heat", [0.0, 30.0])
def test_exchanges_are_made_as_the_sum_says(count, heat):
    codes, wanted = toy(count, 6)
    codes = codes.double().numpy()
    wanted = ((wanted + wanted.T) / 2).double().numpy()
    rng = np.random.default_rng(0)
    most = heat * rng.exponential(size=(3, count))
    partner = rng.integers(0, count, (3, count))
    products, aim, order = codes @ codes.T, wanted.copy(), np.arange(count)
    for matrix in (products, aim):
        matrix[np.diag_indices(count)] = -6
    exchange_in_place(order, products, aim, most, partner)
    ours = codes.copy()
    for s in range(3):
        for i in range(count):
            tried = ours.copy()
            tried[[i, partner[s, i]]] = tried[[partner[s, i], i]]
            if cost(tried, wanted, 1, 6, 0) - cost(ours, wanted, 1, 6, 0) <= most[s, i]:
                ours = tried
    assert (codes[order] == ours).all()
    others = ~np.eye(count, dtype=bool)
    assert (products == ours @ ours.T)[others].all() and (np.diag(products) == -6).all()


def test_exchanges_keep_the_codes_and_find_a_hidden_order():
    codes, _ = toy(10, 12)
    mixed = torch.randperm(10, generator=generator())
    searches = []
    for seed in range(4):
        search = CodeSearch(codes[mixed], codes @ codes.T, 0, generator(seed))
        search.exchange(geometric(0.2, 0.005, 500))
        searches.append(search)
    search = min(searches, key=lambda s: s.misfit)
    assert search.misfit == 0
    assert sorted(search.codes.tolist()) == sorted(codes.tolist())
    assert torch.equal(search.codes @ search.codes.T, codes @ codes.T)
