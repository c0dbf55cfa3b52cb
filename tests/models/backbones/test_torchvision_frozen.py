"""A frozen network of torchvision can be built, and stays in evaluation."""

import pytest

from models.backbones.torchvision import TorchvisionConfig, torchvision_backbone


@pytest.mark.parametrize("batch_norm", ["train", "eval"])
def test_frozen(batch_norm):
    config = TorchvisionConfig("resnet18", "random", freeze="all", batch_norm=batch_norm)
    backbone = torchvision_backbone(config, ("image",))
    backbone.train()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(module.training for module in backbone.visual.modules())
