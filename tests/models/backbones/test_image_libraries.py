"""timm and torchvision: heads removed, tokens, weight files, refusals."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file

from models.backbones.build import build_backbone, frozen_modalities
from models.backbones.timm import TimmConfig
from models.backbones.torchvision import TorchvisionConfig
from utils.errors import UserError

IMAGE = ("image",)


def encode(backbone, rows=2):
    size = backbone.image_input.size
    with torch.no_grad():
        return backbone.eval().encode_image(torch.rand(rows, 3, size, size), tokens=True)


@pytest.mark.parametrize(
    ("model", "width", "tokens"),
    [
        ("test_resnet", 96, (4, 96)),
        ("test_vit", 64, (16, 64)),
        ("test_convnext", 64, (4, 64)),
        ("mobilenetv3_small_050", 1024, (4, 288)),
    ],
)
def test_timm_shapes(model, width, tokens):
    made = build_backbone("timm", TimmConfig(model=model, weights="random", image_size=64), IMAGE)
    features = encode(made)
    assert features.pooled.shape == (2, width) and features.tokens.shape == (2, *tokens)
    assert made.widths == {"image": width} and made.token_widths == {"image": tokens[1]}
    assert made.image_input.size == 64


def test_timm_file_with_a_classifier(tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model("test_resnet", num_classes=7).eval()
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    config = TimmConfig(model="test_resnet", weights=str(tmp_path / "w.safetensors"), freeze="all")
    made = build_backbone("timm", config, IMAGE).train()
    assert not made.visual.training and frozen_modalities(made) == IMAGE
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = whole.forward_head(whole.forward_features(image), pre_logits=True)
        features = made.encode_image(image, tokens=True)
    torch.testing.assert_close(features.pooled, expected)
    torch.testing.assert_close(features.tokens.mean(1), features.pooled)


def test_timm_weights_that_are_not_all_there_are_refused(tmp_path):
    state = timm.create_model("test_vit").state_dict()
    resized = {**state, "pos_embed": torch.randn(1, 1 + 10 * 10, 64)}
    save_file(resized, tmp_path / "resized.safetensors")
    config = TimmConfig(model="test_vit", weights=str(tmp_path / "resized.safetensors"))
    made = build_backbone("timm", config, IMAGE)  # positions are resized to 160 px / 16
    torch.testing.assert_close(made.visual.norm.weight, state["norm.weight"])
    del state["blocks.0.attn.qkv.weight"]
    save_file(state, tmp_path / "partial.safetensors")
    config = TimmConfig(model="test_vit", weights=str(tmp_path / "partial.safetensors"))
    with pytest.raises(UserError, match="1 names are missing .first 'blocks.0.attn.qkv.weight'"):
        build_backbone("timm", config, IMAGE)


def test_timm_lite0(shared_weights):
    file = shared_weights / "tf_efficientnet_lite0.safetensors"
    config = TimmConfig(model="tf_efficientnet_lite0", weights=str(file), image_size=96)
    made = build_backbone("timm", config, IMAGE).eval()
    assert made.image_input.mean == made.image_input.std == (0.5, 0.5, 0.5)
    plain = timm.create_model("tf_efficientnet_lite0").eval()
    plain.load_state_dict(load_file(file))
    image = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        features = made.encode_image(image, tokens=True)
        torch.testing.assert_close(plain.classifier(features.pooled), plain(image))
    assert features.tokens.shape == (2, 9, 1280)


@pytest.mark.parametrize(
    ("model", "width", "tokens"),
    [
        ("resnet18", 512, (4, 512)),
        ("alexnet", 4096, (1, 256)),
        ("mobilenet_v3_small", 1024, (4, 576)),
        ("vit_b_32", 768, (4, 768)),
    ],
)
def test_torchvision_shapes(model, width, tokens):
    config = TorchvisionConfig(model=model, weights="random", image_size=64)
    made = build_backbone("torchvision", config, IMAGE)
    features = encode(made)
    assert features.pooled.shape == (2, width) and features.tokens.shape == (2, *tokens)
    assert made.widths == {"image": width} and made.token_widths == {"image": tokens[1]}


@pytest.mark.parametrize("classes", [1000, None])
def test_torchvision_file_with_and_without_a_classifier(tmp_path, classes):
    torch.manual_seed(0)
    whole = torchvision.models.resnet18().eval()
    state = whole.state_dict()
    if classes is None:
        state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    torch.save(state, tmp_path / "w.pth")
    config = TorchvisionConfig(model="resnet18", weights=str(tmp_path / "w.pth"))
    made = build_backbone("torchvision", config, IMAGE).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(whole.fc(made.encode_image(image).pooled), whole(image))
        features = made.encode_image(image, tokens=True)
    torch.testing.assert_close(features.tokens.mean(1), features.pooled)


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("timm", TimmConfig(model="resnet18"), ("huggingface.co/timm", "backbone=pixels")),
        ("timm", TimmConfig(model="resnet81"), ("Did you mean 'resnet18'?",)),
        ("timm", TimmConfig(model="resnet18", weights="a9_in1k"), ("a1_in1k",)),
        ("torchvision", TorchvisionConfig(), ("resnet50-0676ba61.pth", "download.pytorch.org")),
        ("torchvision", TorchvisionConfig(model="resnet5"), ("Did you mean 'resnet50'?",)),
        ("torchvision", TorchvisionConfig(weights="V9"), ("IMAGENET1K_V1, IMAGENET1K_V2",)),
        ("torchvision", TorchvisionConfig(model="swin_t", weights="random"), ("backbone=timm",)),
    ],
)
def test_mistakes_are_told_in_one_sentence(name, config, words):
    with pytest.raises(UserError) as caught:
        build_backbone(name, config, IMAGE)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_text_method_cannot_have_a_picture_network():
    config = TimmConfig(model="test_resnet", weights="random")
    with pytest.raises(UserError, match="text is needed too"):
        build_backbone("timm", config, ("image", "text"))


def test_names_timm_knows_are_not_fetched_in_vain(monkeypatch):
    monkeypatch.setattr("models.backbones.weights.reachable", lambda url: False)
    monkeypatch.setattr("models.backbones.weights.hub_file", lambda repository, names: None)
    for weights in ("pretrained", True, "a1_in1k"):
        with pytest.raises(UserError, match="nor to be downloaded"):
            build_backbone("timm", TimmConfig(model="resnet18", weights=weights), IMAGE)


def kinds(backbone, kind):
    return [layer for layer in backbone.modules() if isinstance(layer, kind)]


def test_batch_norms_in_evaluation_are_trained_all_the_same():
    config = TorchvisionConfig("resnet18", "random", batch_norm="eval", image_size=64)
    made = build_backbone("torchvision", config, IMAGE).train()
    norms = kinds(made, torch.nn.BatchNorm2d)
    before = [norm.running_mean.clone() for norm in norms]
    image = torch.rand(2, 3, 64, 64)
    pooled = made.encode_image(image).pooled
    torch.testing.assert_close(pooled, made.eval().encode_image(image).pooled)
    pooled.sum().backward()
    assert made.train().training and made.visual.training
    assert all(not n.training and n.weight.grad is not None for n in norms)
    assert all(torch.equal(n.running_mean, b) for n, b in zip(norms, before, strict=True))
    usual = build_backbone("torchvision", TorchvisionConfig("resnet18", "random"), IMAGE).train()
    assert all(norm.training for norm in kinds(usual, torch.nn.BatchNorm2d))


def test_dropout_may_be_off_in_training_too():
    image = torch.rand(2, 3, 64, 64)
    for dropout in ("model", "off"):
        config = TorchvisionConfig(
            "mobilenet_v3_small", "random", batch_norm="eval", dropout=dropout, image_size=64
        )
        made = build_backbone("torchvision", config, IMAGE).train()
        first, second = (made.encode_image(image).pooled for _ in range(2))
        assert torch.equal(first, second) == (dropout == "off")
        if dropout == "off":
            assert torch.equal(made.eval().encode_image(image).pooled, first)


def test_torchvision_weights_that_are_not_here(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("models.backbones.weights.reachable", lambda url: False)
    with pytest.raises(UserError) as caught:
        build_backbone("torchvision", TorchvisionConfig("resnet18", "IMAGENET1K_V1"), IMAGE)
    place = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    for part in (
        "needs resnet18-f37072fd.pth", "https://download.pytorch.org/models/", str(place),
        "backbone=NAME", "backbone=pixels", "backbone.weights=random",
    ):  # fmt: skip
        assert part in str(caught.value)
    place.parent.mkdir()
    torch.save(torchvision.models.resnet18().state_dict(), place)
    build_backbone("torchvision", TorchvisionConfig("resnet18", "IMAGENET1K_V1"), IMAGE)
