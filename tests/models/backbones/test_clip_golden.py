"""OpenAI's CLIP against outputs recorded from the reference implementation."""

from __future__ import annotations

import dataclasses
import json
from itertools import product

import numpy as np
import pytest
import torch

from models.backbones.build import build_backbone
from models.backbones.open_clip import OpenCLIPConfig, clip_tokenize
from tests.golden.openai_clip import openai_name, openai_sizes, tiny_clip


def weights(case, dtype, prefix="w_"):
    found = {
        k.removeprefix(prefix): torch.tensor(v) for k, v in case.items() if k.startswith(prefix)
    }
    return {k: v.to(dtype) for k, v in found.items()}


def close(value, expected):
    np.testing.assert_allclose(value.detach().double().numpy(), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(
    ("dtype", "training"), list(product((torch.float32, torch.float64), (True, False)))
)
def test_features_equal_recorded_ones(golden, dtype, training):
    case = golden("clip_tiny_a")
    heads = int(case["cfg_vision_heads"]), int(case["cfg_text_heads"])
    image = torch.tensor(case["in_image"]).to(dtype)
    ids = torch.tensor(case["in_text"]).long()
    mask = torch.tensor(case["in_key_padding_mask"])
    for padding_mask, suffix in ((False, "nomask"), (True, "masked")):
        backbone = tiny_clip(weights(case, dtype), *heads, text_padding_mask=padding_mask)
        backbone.train(training)
        with torch.set_grad_enabled(training):
            seen = backbone.encode_image(image, tokens=True)
            text = backbone.encode_text(ids, mask, tokens=True)
            pooled_only = backbone.encode_text(ids, mask).pooled
        assert seen.pooled.dtype == text.tokens.dtype == dtype
        close(seen.pooled, case["out_img_cls"])
        close(seen.tokens.transpose(0, 1), case["out_img_tokens_LND"])
        close(text.pooled, case[f"out_txt_eos_{suffix}"])
        close(pooled_only, case[f"out_txt_eos_{suffix}"])
        close(text.tokens.transpose(0, 1), case[f"out_txt_tokens_LND_{suffix}"])
        assert (text.mask.numpy() == case["out_new_key_padding_mask"]).all()


def test_eos_is_hidden_from_heads_but_sos_is_not(golden):
    case = golden("clip_tiny_a")
    eos = int(case["in_text"].max())
    backbone = tiny_clip(weights(case, torch.float32), eos_id=eos)
    ids = torch.tensor(case["in_text"]).long()
    mask = torch.tensor(case["in_key_padding_mask"])
    hidden = backbone.encode_text(ids, mask, tokens=True).mask
    assert torch.equal(hidden, mask | (ids == eos))
    assert not hidden[:, 0].any()


@pytest.mark.parametrize(
    ("name", "prefix"), [("traj_dcmht_a", "w_backbone."), ("traj_dchmt_orig_a", "w_clip.")]
)
def test_weights_of_the_training_trajectories_load(golden, name, prefix):
    case = golden(name)
    state = weights(case, torch.float64, prefix)
    backbone = tiny_clip(state)
    own = {openai_name(n) for n, _ in backbone.named_parameters()}
    assert own == set(state) - {"logit_scale"}  # it takes no gradient and is left out
    ids = torch.tensor(case["in_text"]).long()
    image = torch.tensor(case["in_image"]).double()
    total = backbone.encode_image(image).pooled.sum()
    (total + backbone.encode_text(ids, ids == 0).pooled.sum()).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


def test_a_file_in_openais_names_gets_quick_gelu(golden, tmp_path):
    case = golden("clip_tiny_a")
    state = weights(case, torch.float32)
    sizes = openai_sizes(state)
    del sizes["quick_gelu"]
    (tmp_path / "tiny.json").write_text(json.dumps(sizes))
    extras = {"input_resolution": 32, "context_length": 12, "vocab_size": 60}
    torch.save(state | {k: torch.tensor(v) for k, v in extras.items()}, tmp_path / "clip.pt")
    config = OpenCLIPConfig(model=str(tmp_path / "tiny.json"), weights=str(tmp_path / "clip.pt"))
    backbone = build_backbone("open_clip", config)
    close(backbone.encode_image(torch.tensor(case["in_image"])).pooled, case["out_img_cls"])
    plain = dataclasses.replace(config, quick_gelu=False)
    other = build_backbone("open_clip", plain).encode_image(torch.tensor(case["in_image"]))
    assert np.abs(other.pooled.detach().numpy() - case["out_img_cls"]).max() > 1e-3


@pytest.mark.parametrize("name", ["tokenize_a"])
def test_ids_equal_recorded_ones(golden, name):
    case = golden(name)
    ids, mask = clip_tokenize(int(case["cfg_max_words"]))([str(s) for s in case["in_captions"]])
    assert ids.dtype == torch.int64 and mask.dtype == torch.bool
    assert (ids.numpy() == case["out_ids"]).all()
    assert (mask.numpy() == case["out_key_padding_mask"]).all()


def test_long_text_is_cut_before_its_eos_and_a_literal_id_0_is_no_padding():
    ids, mask = clip_tokenize(8)(["a " * 20, "! !", "!!!?", ""])
    assert ids.shape == (4, 8)
    assert ids[0, 0] == 49406 and ids[0, -1] == 49407 and not mask[0].any()
    assert mask.sum(dim=1).tolist() == [0, 4, 8 - int((ids[2] != 0).nonzero().max()) - 1, 6]
    inner = torch.tensor([[49406, 0, 49407, 0]])
    assert (torch.arange(4) > inner.argmax(1, keepdim=True)).tolist() == [
        [False, False, False, True]
    ]


def test_no_text_at_all_gives_no_rows():
    ids, mask = clip_tokenize(8)([])
    assert ids.shape == mask.shape == (0, 8)
