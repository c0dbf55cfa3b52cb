"""LSH: centred features, one set of hyperplanes, and bits that differ as often as angles say."""

from __future__ import annotations

import math

import pytest
import torch

from models.backbones.base import CachedBackbone
from models.base import TrainFeatures
from models.shallow.lsh import LSH
from tests.models.toys import ROWS, toy_batch, toy_problem


def fitted(bits: int, widths: dict[str, int], features: dict[str, torch.Tensor]) -> LSH:
    model = LSH(None, toy_problem(bits), CachedBackbone(widths, {}, "toy", {}))
    model.fit(TrainFeatures(features.get("image"), features.get("text"), torch.ones(ROWS, 1)))
    return model


def test_each_modality_is_centred_by_its_own_mean():
    batch = toy_batch()
    features = {m: batch.features(m).pooled + 9 for m in ("image", "text")}
    model = fitted(16, {"image": 32, "text": 32}, features)
    for modality, values in features.items():
        layer = model.projections[modality]
        torch.testing.assert_close(layer.mean, values.mean(0))
        torch.testing.assert_close(layer(values), (values - values.mean(0)) @ layer.weight)
        assert layer(values).mean(0).abs().max() < 1e-3


def test_equal_widths_share_their_hyperplanes():
    drawn = {m: torch.randn(ROWS, 32) for m in ("image", "text")}
    model = fitted(16, {"image": 32, "text": 32}, drawn)
    assert torch.equal(model.projections["image"].weight, model.projections["text"].weight)
    other = fitted(16, {"image": 32, "text": 8}, {**drawn, "text": torch.randn(ROWS, 8)})
    assert other.projections["text"].weight.shape == (8, 16)


@pytest.mark.parametrize("degrees", [20, 90, 150])
def test_bits_differ_as_often_as_the_angle_says(degrees):
    bits, angle = 40_000, math.radians(degrees)
    model = fitted(bits, {"image": 2}, {"image": torch.randn(ROWS, 2)})
    layer = model.projections["image"]
    rows = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]]) + layer.mean
    one, two = layer(rows) >= 0
    share = (one != two).double().mean().item()
    deviation = math.sqrt(degrees / 180 * (1 - degrees / 180) / bits)
    assert share == pytest.approx(degrees / 180, abs=4 * deviation)
    assert one.double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(bits))
