"""ITQ: its parts against scipy's eigenvectors and Procrustes, its codes against a loop of ours."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from models.base import TrainFeatures
from models.shallow.itq import canonical_directions, itq_rotation, principal_directions
from tests.models.toys import make_model, toy_batch, toy_problem

ROWS, WIDTH = 200, 7


def stretched(seed: int) -> torch.Tensor:
    """Return centred rows [N,D] whose deviations differ from direction to direction."""
    rng = np.random.default_rng(seed)
    turn = scipy.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    values = rng.normal(size=(ROWS, WIDTH)) * [9, 6, 4, 2, 1, 0.5, 0.1] @ turn
    return torch.from_numpy(values - values.mean(0))


def equal_but_for_signs(one: np.ndarray, two: np.ndarray) -> None:
    np.testing.assert_allclose(np.abs(one), np.abs(two), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("bits", [1, 3, WIDTH])
def test_the_principal_directions_are_those_of_the_greatest_variance(bits):
    rows = stretched(0)
    found = principal_directions(rows, bits).numpy()
    _, _, right = scipy.linalg.svd(rows.numpy(), full_matrices=False)  # the greatest first
    equal_but_for_signs(found, right[:bits].T)
    assert np.var(rows.numpy() @ found, axis=0)[0] > 50


def test_a_rotation_is_procrustes_of_the_codes_before():
    rows = stretched(1)[:, :4]
    generator = torch.Generator().manual_seed(3)
    expected = scipy.linalg.qr(torch.randn(4, 4, generator=generator).double().numpy())[0]
    start = itq_rotation(rows, 0, torch.Generator().manual_seed(3)).numpy()
    equal_but_for_signs(start, expected)
    lost = []
    for iterations in range(1, 6):
        codes = np.where(rows.numpy() @ start >= 0, 1.0, -1.0)
        start = scipy.linalg.orthogonal_procrustes(rows.numpy(), codes)[0]
        found = itq_rotation(rows, iterations, torch.Generator().manual_seed(3)).numpy()
        np.testing.assert_allclose(found, start, atol=1e-9)
        projected = rows.numpy() @ found
        lost.append(np.square(np.sign(projected) - projected).sum())
    assert lost == sorted(lost, reverse=True) and lost[-1] < lost[0]


def whitening_covariance(rows: np.ndarray, ridge: float) -> np.ndarray:
    covariance = rows.T @ rows / len(rows)
    return covariance + ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance))


@pytest.mark.parametrize("ridge", [1e-6, 0.1])
def test_canonical_directions_solve_the_eigenvalue_problem(ridge):
    first = stretched(2)
    noise = torch.from_numpy(np.random.default_rng(3).normal(size=(ROWS, 5)))
    second = first[:, :5] @ torch.diag(torch.tensor([1.0, 1, 0.5, 0.2, 0]).double()) + noise
    second -= second.mean(0)
    a, b = (values.numpy() for values in canonical_directions(first, second, 3, ridge))
    of_first, of_second = (whitening_covariance(x.numpy(), ridge) for x in (first, second))
    cross = first.numpy().T @ second.numpy() / ROWS
    # C₁₂ C₂₂⁻¹ C₂₁ w = ρ² C₁₁ w, with wᵀ C₁₁ w = 1
    squares, vectors = scipy.linalg.eigh(
        cross @ np.linalg.solve(of_second, cross.T), of_first
    )  # ascending
    correlations = np.sqrt(squares[::-1][:3])
    equal_but_for_signs(a, vectors[:, ::-1][:, :3] * correlations)
    np.testing.assert_allclose(np.diag(b.T @ of_second @ b), correlations**2, rtol=1e-6)
    # the two sides of a direction agree in their sign: their covariance is ρ · ρ²
    np.testing.assert_allclose(a.T @ cross @ b, np.diag(correlations**3), atol=1e-8)


@pytest.mark.parametrize("modalities", [("image",), ("image", "text")])
def test_codes_are_centred_projections_that_lose_least(modalities):
    batch = toy_batch()
    features = {m: batch.features(m).pooled + 5 for m in modalities}  # far from 0
    model = make_model("itq", toy_problem(8), modalities=modalities)
    model.fit(TrainFeatures(features["image"], features.get("text"), batch.label))
    for modality, values in features.items():
        weight = model.projections[modality].weight
        codes = model.projections[modality](values)
        torch.testing.assert_close(codes, (values - values.mean(0)) @ weight, atol=1e-4, rtol=1e-4)
        assert codes.mean(0).abs().max() < 1e-4
        if len(modalities) == 1:  # an orthonormal basis of the leading directions, turned
            torch.testing.assert_close(weight.T @ weight, torch.eye(8), atol=1e-5, rtol=0)
            centred = (values - values.mean(0)).double()
            _, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
            kept = (centred @ weight.double()).square().sum()
            torch.testing.assert_close(kept, sizes[:8].square().sum(), rtol=1e-5, atol=0)


def test_more_bits_than_directions_are_random_ones_of_the_least_length():
    batch, bits = toy_batch(), 48  # of features of width 32
    model = make_model("itq", toy_problem(bits), modalities=("image",), iterations=0)
    weight = model.projections["image"].weight
    assert weight.shape == (32, bits) and torch.linalg.matrix_rank(weight) == 32
    assert set(torch.sign(model.encode(batch, "image")).unique().tolist()) == {-1.0, 1.0}
