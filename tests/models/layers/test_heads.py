"""Hash heads: each against its formula in NumPy, in training and in evaluation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from models.base import TrainFeatures
from models.layers.heads import (
    BatchNorm,
    Standardize,
    kaiming_fan_out,
    mlp_tanh_head,
    small_linear,
)
from tests.models.toys import make_model, toy_batch, toy_problem


def linear(layer: nn.Linear, rows: np.ndarray) -> np.ndarray:
    return rows @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def test_two_layers_in_evaluation():
    torch.manual_seed(0)
    head, rows = mlp_tanh_head(7, 11, 5, dropout=0.4).eval(), torch.randn(9, 7)
    first, second = (layer for layer in head if isinstance(layer, nn.Linear))
    inner = np.maximum(linear(first, rows.numpy()), 0)
    expected = np.tanh(linear(second, inner))
    np.testing.assert_allclose(head(rows).detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert (linear(first, rows.numpy()) < -0.1).any()


def test_two_layers_drop_their_share_of_the_inner_layer():
    torch.manual_seed(0)
    width = 4000
    head = mlp_tanh_head(3, width, width, dropout=0.3).train()
    with torch.no_grad():  # what comes out tells what the second layer was given
        head[0].weight.zero_()
        head[0].bias.fill_(0.1)
        head[3].weight.copy_(torch.eye(width))
        head[3].bias.zero_()
        given = head(torch.zeros(1, 3)).atanh()
    dropped = (given == 0).double().mean().item()
    assert dropped == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / width))
    torch.testing.assert_close(given[given != 0], torch.tensor(0.1 / 0.7).expand(
        int((given != 0).sum())), rtol=1e-4, atol=0)  # fmt: skip


def test_a_linear_head_drops_before_the_tanh():
    model, batch = make_model("dsph", toy_problem(64)), toy_batch()
    layer, rows = model.heads["image"][0], batch.features("image").pooled
    values = linear(layer, rows.numpy())
    with torch.no_grad():
        plain = model.eval().encode(batch, "image").numpy()
        torch.manual_seed(0)
        trained = model.train().encode(batch, "image").numpy()
    np.testing.assert_allclose(plain, np.tanh(values), rtol=1e-4, atol=1e-6)
    kept = trained != 0
    assert 0.7 < kept.mean() < 0.9  # of 0.8
    np.testing.assert_allclose(trained[kept], np.tanh(values / 0.8)[kept], rtol=1e-4, atol=1e-6)
    assert np.abs(trained).max() <= 1


def test_standardising_uses_the_training_rows():
    rng = np.random.default_rng(0)
    rows = rng.normal(3, [0.01, 1, 20], (50, 3)).astype(np.float32)
    layer = Standardize(3)
    start = torch.from_numpy(rows)
    torch.testing.assert_close(layer(start), start)  # before it is fitted
    layer.fit(start)
    expected = (rows - rows.mean(0)) / (np.sqrt(((rows - rows.mean(0)) ** 2).mean(0)) + 1e-3)
    np.testing.assert_allclose(layer(start).numpy(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("standardize", [True, False])
def test_a_head_sees_standardised_features_if_told(standardize):
    model = make_model("image_hash", toy_problem(16), standardize=standardize).eval()
    batch, far = toy_batch(), 100.0
    rows = batch.features("image").pooled * 7 + far
    batch.image_features = batch.image_features._replace(pooled=rows)
    assert model.needs_fit == standardize
    model.fit(TrainFeatures(rows, None, batch.label))
    seen = rows.numpy()
    if standardize:
        seen = (seen - seen.mean(0)) / (seen.std(0) + 1e-3)
    with torch.no_grad():
        codes = model.encode(batch, "image").numpy()
    np.testing.assert_allclose(codes, linear(model.heads["image"], seen), rtol=1e-3, atol=1e-2)


def test_first_weights():
    torch.manual_seed(0)
    head = mlp_tanh_head(40, 500, 30, dropout=0.1)
    kaiming_fan_out(head)
    for layer, outputs in ((head[0], 500), (head[3], 30)):
        bound = math.sqrt(6 / outputs)
        assert 0.98 * bound < layer.weight.abs().max().item() <= bound
        assert not layer.bias.any()
    small = small_linear(300, 200)
    assert small.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not small.bias.any() and small.weight.shape == (200, 300)


def test_a_batch_of_one_row_takes_the_running_statistics():
    torch.manual_seed(0)
    layer, plain = BatchNorm(4).train(), nn.BatchNorm1d(4).train()
    rows = 3 * torch.randn(20, 4) + 2
    torch.testing.assert_close(layer(rows), plain(rows))
    before = layer.running_mean.clone(), layer.running_var.clone()
    one = layer(rows[:1])
    assert torch.equal(layer.running_mean, before[0]) and torch.equal(layer.running_var, before[1])
    torch.testing.assert_close(one, layer.eval()(rows[:1]))
