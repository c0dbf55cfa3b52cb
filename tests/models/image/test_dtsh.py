"""DTSH against a loop over triplets; slices, clips, rows without a triplet."""

from __future__ import annotations

import math

import pytest
import torch

from models.image import dtsh
from models.image.dtsh import DTSHConfig, DTSHLoss, triplet_likelihood
from tests.models.classics import close, dot, example, mean, problem, shared, terms_of


def loop(code, label, margin, scale=1.0):
    anchors = []
    for a, y in enumerate(label):
        values = []
        for p, z in enumerate(label):
            for n, w in enumerate(label):
                if shared(y, z) and not shared(y, w):
                    t = scale * (dot(code[a], code[p]) - dot(code[a], code[n])) - margin
                    t = min(max(t, -100.0), 50.0)
                    values.append(math.log(1 + math.exp(t)) - t)
        if values:
            anchors.append(mean(values))
    return mean(anchors)


@pytest.mark.parametrize("slice_size", [2**20, 30, 1])
@pytest.mark.parametrize("stretch", [1.0, 12.0])
def test_loop(stretch, slice_size, monkeypatch):
    monkeypatch.setattr(dtsh, "TRIPLETS_AT_ONCE", slice_size)
    code, batch = example()
    config = DTSHConfig(margin=1.5, scale=0.5, lambda_quant=0.2)
    terms = terms_of(DTSHLoss(config, problem()), stretch * code, batch)
    u = stretch * code.detach()
    close(terms.triplet, loop(u, batch.label, 1.5, 0.5))
    close(terms.quant, 0.2 * mean([(abs(v) - 1) ** 2 for v in u.flatten().tolist()]))


def naive(inner, similar, margin):
    """Return the same by the whole cube and automatic differentiation."""
    cube = (inner[:, :, None] - inner[:, None] - margin).clamp(-100, 50)
    chosen = (similar[:, :, None] & ~similar[:, None]).to(inner.dtype)
    count = chosen.sum((1, 2))
    each = (torch.nn.functional.softplus(-cube) * chosen).sum((1, 2)) / count.clamp_min(1)
    return each.sum() / (count > 0).sum().clamp_min(1)


@pytest.mark.parametrize("slice_size", [2**20, 100])
@pytest.mark.parametrize("spread", [1.0, 60.0])
def test_gradient_of_the_cube(spread, slice_size, monkeypatch):
    monkeypatch.setattr(dtsh, "TRIPLETS_AT_ONCE", slice_size)
    generator = torch.Generator().manual_seed(4)
    inner = spread * torch.randn(9, 9, generator=generator, dtype=torch.float64)
    similar = torch.rand(9, 9, generator=generator) < 0.4
    similar[0], similar[1] = True, False  # anchors without a triplet
    inner.requires_grad_()
    ours, cube = triplet_likelihood(inner, similar, 2.0), naive(inner, similar, 2.0)
    torch.testing.assert_close(ours, cube)
    (one,), (two,) = (torch.autograd.grad(3 * value, inner) for value in (ours, cube))
    torch.testing.assert_close(one, two)
    assert not one[:2].any()


@pytest.mark.parametrize("same", [True, False])
def test_without_a_triplet_nothing_is_pulled(same):
    inner = torch.randn(3, 3, requires_grad=True)
    value = triplet_likelihood(inner, torch.full((3, 3), same), 5.0)
    assert value == 0
    assert not torch.autograd.grad(value, inner)[0].any()


def test_one_row():
    code, batch = example(rows=1)
    terms = terms_of(DTSHLoss(DTSHConfig(), problem()), code, batch)
    assert terms.triplet == 0 and terms.total().isfinite()


def test_half_precision_products_keep_their_dtype():
    inner = torch.randn(4, 4, dtype=torch.float32)
    assert triplet_likelihood(inner, torch.eye(4) > 0, 5.0).dtype == torch.float32
