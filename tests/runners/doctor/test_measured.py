"""Costs that are measured on shapes alone agree with published ones and with real tensors."""

from __future__ import annotations

import pytest
import torch
import torchvision

from common.config.run_config import compose
from models.backbones.build import build_backbone
from runners.doctor.measured import matrix_rate, measure_encoder


def measure(*words, modalities=("image",)):
    backbone = compose(words).backbone
    return measure_encoder(backbone.name, backbone.config, modalities)


def test_alexnet_against_torchvisions_figures():
    cost = measure("backbone=alexnet")
    stated = torchvision.models.AlexNet_Weights.DEFAULT.meta
    classifier = 4096 * 1000
    assert cost.parameters == cost.trained == stated["num_params"] - classifier - 1000
    operations = 2 * (stated["_ops"] * 1e9 - classifier)  # torchvision counts multiply-adds
    assert cost.flops["image"] == pytest.approx(operations, rel=0.01)
    assert cost.size == 224 and cost.widths == {"image": 4096}


def test_kept_bytes_are_those_of_real_tensors():
    words = ["backbone=clip_mini", "backbone.freeze=none"]
    backbone = compose(words).backbone
    encoder = build_backbone(backbone.name, backbone.config, ("image",)).train()
    own = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    kept, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        encoder.encode_image(torch.rand(4, 3, 64, 64), tokens=True)
    assert measure(*words).kept["image"] == pytest.approx(sum(kept.values()) / 4, rel=0.15)


def test_frozen_encoders_keep_nothing():
    cost = measure("backbone=clip_mini", modalities=("image", "text"))
    assert cost.is_frozen and set(cost.kept.values()) == {0.0}
    assert cost.flops["text"] > 0 and cost.tokens["image"] > 0


def test_an_encoder_that_cannot_be_measured():
    assert measure("backbone=resnet50", "backbone.model=swin_t") is None


def test_the_rate_is_positive():
    assert matrix_rate(torch.device("cpu"), seconds=0) > 0
