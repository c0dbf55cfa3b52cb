"""Dropout drawn sixteen bits at a time: its share, its mean, its gradient."""

from __future__ import annotations

import pytest
import torch

from models.layers.dropout import noise, thin_relu_


@pytest.mark.parametrize("probability", [0.001, 0.3, 0.5, 0.9])
def test_the_share_is_the_probability_and_the_mean_one(probability):
    torch.manual_seed(0)
    drawn = noise((300, 1000), probability, torch.zeros(1, dtype=torch.float64))
    kept = drawn > 0
    deviation = (probability * (1 - probability) / drawn.numel()) ** 0.5
    assert abs(float((~kept).double().mean()) - probability) < 4 * deviation
    n = round(probability * 65536)
    torch.testing.assert_close(
        drawn[kept], torch.full_like(drawn[kept], 65536 / (65536 - n)), rtol=1e-12, atol=0
    )


def test_neighbours_are_decided_apart():
    torch.manual_seed(0)
    kept = (noise((100_000, 4), 0.3, torch.zeros(1)) > 0).double()
    correlation = torch.corrcoef(kept.T) - torch.eye(4, dtype=torch.float64)
    assert float(correlation.abs().max()) < 4 / 100_000**0.5


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3, 5), (0,), (4, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_shape_and_dtype(shape, dtype):
    drawn = noise(shape, 0.3, torch.zeros(1, dtype=dtype))
    assert drawn.shape == shape and drawn.dtype == dtype


def test_it_draws_from_the_generator_of_pytorch():
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(noise((50,), 0.5, torch.zeros(1)))
    assert torch.equal(*found)
    assert not torch.equal(found[0], noise((50,), 0.5, torch.zeros(1)))


def test_nothing_and_everything():
    assert bool((noise((9,), 0.0, torch.zeros(1)) == 1).all())
    assert bool((noise((9,), 1.0, torch.zeros(1)) == 0).all())
    x = torch.randn(4, 5)
    kept = x.clone()
    assert thin_relu_(kept, 0.0) == 1
    assert torch.equal(kept, x.relu())
    assert thin_relu_(kept, 1.0) == 0
    assert float(kept.abs().max()) == 0


def test_what_is_left_is_scaled():
    x = torch.randn(40, 50, dtype=torch.float64)
    torch.manual_seed(1)
    found = x.clone()
    scale = thin_relu_(found, 0.3)
    torch.manual_seed(1)
    thin = noise(x.shape, 0.3, x)
    torch.testing.assert_close(found, x.relu() * thin)
    assert scale == float(thin.max())
