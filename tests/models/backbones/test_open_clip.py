"""Dual encoders built by open_clip: tokens, masks, dtypes, freezing, refusals."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch
from safetensors.torch import save_file

from common.batch import Batch
from models.backbones.build import build_backbone, frozen_modalities
from models.backbones.open_clip import OpenCLIPConfig
from utils.errors import UserError

BOTH = ("image", "text")


@pytest.fixture(scope="module")
def tiny_file(tiny_json, tmp_path_factory):
    torch.manual_seed(0)
    made = build_backbone("open_clip", OpenCLIPConfig(model=tiny_json, weights="random"), BOTH)
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file({k: v.contiguous() for k, v in made.state_dict().items()}, file)
    return str(file)


@pytest.fixture(scope="module")
def config(tiny_json, tiny_file):
    return OpenCLIPConfig(model=tiny_json, weights=tiny_file, max_words=12)


@pytest.fixture(scope="module")
def backbone(config):
    return build_backbone("open_clip", config, BOTH).eval()


def batch_of(backbone, rows=3):
    size = backbone.image_input.size
    text, mask = backbone.tokenize(["a red dog", "!", "two birds on a very long branch"][:rows])
    return Batch(
        label=torch.ones(rows, 1),
        index=torch.arange(rows),
        image=torch.rand(rows, 3, size, size),
        text=text,
        text_mask=mask,
    )


@pytest.mark.parametrize("rows", [1, 3])
def test_shapes(backbone, rows):
    batch = batch_of(backbone, rows)
    image = backbone(batch, "image", tokens=True)
    text = backbone(batch, "text", tokens=True)
    assert image.pooled.shape == (rows, 24) and image.tokens.shape == (rows, 4, 24)
    assert text.pooled.shape == (rows, 24) and text.tokens.shape == (rows, 12, 24)
    assert image.mask is None and text.mask.shape == (rows, 12)
    assert backbone.widths == backbone.token_widths == {"image": 24, "text": 24}
    assert backbone(batch, "image").tokens is None


def test_token_counts_are_those_of_any_batch_and_cost_no_randomness(backbone):
    batch, state = batch_of(backbone), torch.get_rng_state()
    backbone.train()
    counts = backbone.token_counts
    assert backbone.training and torch.equal(torch.get_rng_state(), state)
    backbone.eval()
    for modality, count in counts.items():
        assert backbone(batch, modality, tokens=True).tokens.shape[1] == count


def test_double_precision_agrees(config, backbone):
    double = build_backbone("open_clip", config, BOTH).eval().double()
    batch = batch_of(backbone)
    for modality in BOTH:
        exact = double(batch.to("cpu", torch.float64), modality).pooled
        assert exact.dtype == torch.float64
        torch.testing.assert_close(
            backbone(batch, modality).pooled.double(), exact, atol=1e-5, rtol=0
        )


def test_padding_mask_changes_padding_positions_only_when_asked(config, backbone):
    masked = build_backbone("open_clip", dataclasses.replace(config, text_padding_mask=True), BOTH)
    batch = batch_of(backbone)
    plain = backbone(batch, "text", tokens=True)
    other = masked.eval()(batch, "text", tokens=True)
    real = ~batch.text_mask
    torch.testing.assert_close(plain.tokens[real], other.tokens[real], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(plain.tokens[~real], other.tokens[~real], atol=1e-4)
    assert masked.fingerprint != backbone.fingerprint


def test_a_row_of_nothing_but_padding_stays_finite(config):
    masked = build_backbone("open_clip", dataclasses.replace(config, text_padding_mask=True), BOTH)
    ids = torch.zeros(2, 12, dtype=torch.long)
    features = masked.encode_text(ids, torch.ones_like(ids, dtype=torch.bool), tokens=True)
    assert features.tokens.isfinite().all()


def test_frozen_tower_takes_no_gradient_and_stays_in_eval_mode(config):
    made = build_backbone("open_clip", dataclasses.replace(config, freeze="image"), BOTH)
    made.train()
    assert not made.visual.training and made.text.training and made.training
    assert not any(p.requires_grad for p in made.visual.parameters())
    assert all(p.requires_grad for p in made.text.parameters())
    assert frozen_modalities(made) == ("image",)
    everything = build_backbone(
        "open_clip", dataclasses.replace(config, freeze="all"), BOTH
    ).train()
    assert not everything.text.training and frozen_modalities(everything) == BOTH
    only = build_backbone("open_clip", dataclasses.replace(config, freeze="all"), ("text",))
    assert frozen_modalities(only) == ("text",)


def test_towers_that_are_not_needed_are_left_out(config, backbone):
    only = build_backbone("open_clip", config, ("image",))
    assert only.modalities == ("image",) and only.text is None
    assert only.fingerprint == backbone.fingerprint
    with pytest.raises(ValueError, match="without its text tower"):
        only.encode_text(torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, dtype=torch.bool))


def test_picture_size_and_normalisation_can_be_set(config):
    larger = dataclasses.replace(
        config, image_size=24, image_mean=(0.5, 0.5, 0.5), image_std=(0.25, 0.25, 0.25)
    )
    made = build_backbone("open_clip", larger, ("image",))
    assert made.image_input.size == 24 and made.image_input.std == (0.25, 0.25, 0.25)
    assert made.encode_image(torch.rand(1, 3, 24, 24), tokens=True).tokens.shape == (1, 9, 24)


def test_random_start_is_said_in_the_log_and_depends_on_the_seed(tiny_json, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hashing"), "propagate", True)  # main.main() stops it
    marks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made = build_backbone("open_clip", OpenCLIPConfig(model=tiny_json, weights="random"))
        marks.append(made.fingerprint)
    assert "starts from random weights" in caplog.text
    assert marks[0] == marks[1] != marks[2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"weights": None},
            ("backbone.weights is not set", "weights=PATH", "backbone=pixels"),
        ),
        ({"weights": "nowhere/x.safetensors"}, ("'nowhere/x.safetensors' does not exist",)),
        ({"model": "ViT-B-32-quickgelu", "weights": None}, ("ViT-B-32.pt", "openaipublic")),
        ({"model": "ViT-B-23"}, ("Did you mean 'ViT-B-32'?",)),
        ({"model": "none.json"}, ("none.json", "no readable JSON")),
        ({"weights": "laion9b", "model": "ViT-B-32"}, ("neither a file nor a tag", "openai")),
        ({"image_mean": (0.5,)}, ("three numbers",)),
        ({"max_words": 2}, ("max_words=2",)),
    ],
)
def test_mistakes_are_told_in_one_sentence(config, changes, words):
    with pytest.raises(UserError) as caught:
        build_backbone("open_clip", dataclasses.replace(config, **changes), BOTH)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_tag_that_cannot_be_downloaded_is_told_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("models.backbones.weights.reachable", lambda url: False)
    monkeypatch.setattr("models.backbones.weights.hub_file", lambda repository, names: None)
    with pytest.raises(UserError, match=r"needs ViT-B-32\.pt \(OpenAI, https://open") as caught:
        build_backbone("open_clip", OpenCLIPConfig(model="ViT-B-32", weights="openai"), BOTH)
    place = tmp_path / ".cache" / "clip" / "ViT-B-32.pt"
    assert f"cannot be downloaded: put it at '{place}'" in str(caught.value)


@pytest.fixture(scope="module")
def lit_mini(shared_weights):
    config = OpenCLIPConfig(
        model=str(shared_weights / "lit_mini.json"),
        weights=str(shared_weights / "lit_mini.safetensors"),
        freeze="all",
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
    )
    return build_backbone("open_clip", config, BOTH).train()


def test_lit_mini_joins_a_timm_and_a_hugging_face_tower(lit_mini):
    assert lit_mini.widths == lit_mini.token_widths == {"image": 512, "text": 512}
    assert lit_mini.image_input.size == 128
    ids, mask = lit_mini.tokenize(["a dog runs over the green grass", "two men"])
    assert ids.shape == (2, 32) and (~mask).sum(dim=1).tolist() == [9, 4]
    text = lit_mini.encode_text(ids, mask, tokens=True)
    assert torch.equal(text.mask, mask) and text.tokens.shape == (2, 32, 512)
    torch.testing.assert_close(text.pooled, lit_mini.text(ids))  # open_clip's own forward
    visible = (~mask).float()[..., None]
    mean = (text.tokens * visible).sum(1) / visible.sum(1)
    torch.testing.assert_close(mean, text.pooled, atol=1e-4, rtol=1e-4)
    image = lit_mini.encode_image(torch.rand(2, 3, 128, 128) * 2 - 1, tokens=True)
    assert image.tokens.shape == (2, 16, 512)
    torch.testing.assert_close(image.tokens.mean(1), image.pooled, atol=1e-4, rtol=1e-4)


def test_lit_mini_features_of_photos_have_norm_ten(lit_mini, shared_weights):
    photos = sorted((shared_weights.parent / "data" / "flickr8k" / "images").glob("*.jpg"))[:16]
    if not photos:
        pytest.skip("no photos at ../shared/data/flickr8k/images")
    from torchvision.io import ImageReadMode, decode_image

    pixels = torch.stack([decode_image(str(p), ImageReadMode.RGB) for p in photos]).float() / 255
    with torch.no_grad():
        pooled = lit_mini.encode_image((pixels - 0.5) / 0.5).pooled
    assert 8 < float(pooled.norm(dim=1).mean()) < 12


def test_a_description_that_asks_for_remote_code_is_refused():
    from models.backbones.open_clip import _tokenizer

    words = {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}
    with pytest.raises(UserError, match="asks in tokenizer_kwargs for trust_remote_code"):
        _tokenizer("mine.json", words, None, 8)
