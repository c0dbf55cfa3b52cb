"""The small dual encoder that comes with the project, and the script that trains it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.backbones.build import build_backbone
from models.backbones.clip_attention import SelfAttention
from models.backbones.open_clip import OpenCLIPConfig
from models.backbones.weights import PROJECT_ROOT
from runners.training.clip_mini import ARCHITECTURE, Pairs, learning_rate, recall, save, train

WEIGHTS = "models/backbones/clip_mini.safetensors"
CONFIG = OpenCLIPConfig(model="models/backbones/clip_mini.json", weights=WEIGHTS, freeze="all")
BOTH = ("image", "text")


def test_the_shipped_weights_load_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (PROJECT_ROOT / WEIGHTS).stat().st_size <= 10e6
    backbone = build_backbone("open_clip", CONFIG, BOTH)
    assert backbone.image_input.size == 64 and backbone.image_input.mean == (0.5, 0.5, 0.5)
    assert backbone.widths == {"image": 128, "text": 128}
    features = backbone.encode_image(torch.rand(2, 3, 64, 64), tokens=True)
    assert features.pooled.isfinite().all() and features.tokens.shape[::2] == (2, 128)
    ids, mask = backbone.tokenize(["a red beast on the sand", "snow"])
    assert backbone.encode_text(ids, mask, tokens=True).tokens.shape == (2, 32, 128)


def test_blocks_of_its_text_tower_are_the_lean_ones():
    blocks = build_backbone("open_clip", CONFIG, BOTH).text.transformer.resblocks
    assert len(blocks) == 3 and all(isinstance(block.attn, SelfAttention) for block in blocks)


def toy_pairs(rows):
    """Flat pictures and the word for their brightness."""
    words = ("black", "grey", "white")
    shades = np.arange(rows) % 3
    pictures = np.broadcast_to((shades * 110)[:, None, None, None], (rows, 64, 64, 3))
    return Pairs(pictures.astype(np.uint8), [(f"a {words[s]} picture",) for s in shades])


def test_training_learns_and_saves_what_open_clip_loads(tmp_path, capsys):
    pairs = toy_pairs(12)
    model = train(pairs, steps=12, batch_size=12, peak=1e-3)
    assert "step 12/12" in capsys.readouterr().out
    save(model, tmp_path / "w.safetensors")
    config = OpenCLIPConfig(model=str(ARCHITECTURE), weights=str(tmp_path / "w.safetensors"))
    backbone = build_backbone("open_clip", config, BOTH).eval()
    x = torch.from_numpy(pairs.images[:3]).permute(0, 3, 1, 2).float() / 255
    ids, mask = backbone.tokenize([captions[0] for captions in pairs.captions[:3]])
    with torch.no_grad():
        image = backbone.encode_image((x - 0.5) / 0.5).pooled
        text = backbone.encode_text(ids, mask).pooled
        expected = model.images(torch.from_numpy(pairs.images[:3])), model.texts(ids)
    for ours, theirs in zip((image, text), expected, strict=True):
        ours = ours / ours.norm(dim=1, keepdim=True)
        torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=0)  # float16 on disk
    assert set(recall(model, pairs)) == {"i2t R@1", "i2t R@10", "t2i R@1", "t2i R@10"}


def test_learning_rate_warms_up_and_falls_to_zero():
    rates = [learning_rate(step, 100, 1.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == rates[5] == 1.0
    assert rates[-1] < 0.01 and rates[5:] == sorted(rates[5:], reverse=True)
