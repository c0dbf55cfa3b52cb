"""BLIP: features of transformers' own classes, weight files of every kind, refusals."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.backbones import weights as files
from models.backbones.blip import BlipConfig
from models.backbones.build import build_backbone, frozen_modalities
from models.backbones.towers import freeze_tower
from utils.errors import UserError

BOTH = ("image", "text")
SIDE, PATCH, WIDTH = 16, 8, 64
WORDS = ("a", "photo", "of", "the", "ant", "bee")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return folders of tiny models: ``itm``, ``captioner``, ``vision``."""
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipForImageTextRetrieval,
        BlipVisionModel,
    )

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("blip")
    names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *WORDS)
    common = {"hidden_size": WIDTH, "intermediate_size": 16, "num_hidden_layers": 2,
              "num_attention_heads": 1, "projection_dim": 16}  # fmt: skip
    config = BlipConfig(
        text_config={
            **common, "vocab_size": len(names), "encoder_hidden_size": WIDTH, "pad_token_id": 0,
            "max_position_embeddings": 40,
        },
        vision_config={
            **common, "image_size": SIDE, "patch_size": PATCH, "initializer_range": 0.2,
        },
    )  # fmt: skip
    itm = BlipForImageTextRetrieval(config)
    itm.save_pretrained(root / "itm")
    tokens = BertTokenizer(vocab={name: i for i, name in enumerate(names)}, bos_token="[DEC]")
    tokens.save_pretrained(root / "itm")
    BlipForConditionalGeneration(config).save_pretrained(root / "captioner")
    BlipVisionModel(config.vision_config).save_pretrained(root / "vision")
    return root


def build(weights, modalities=("image",), **keys):
    return build_backbone("blip", BlipConfig(weights=str(weights), **keys), modalities)


@torch.no_grad()
def pooled(backbone, pixels):
    return backbone.eval().encode_image(pixels).pooled


def pixels(rows=3, side=SIDE):
    return torch.randn(rows, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["itm", "captioner"])
def test_features_are_class_tokens(folders, kind):
    from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval

    classes = {"itm": BlipForImageTextRetrieval, "captioner": BlipForConditionalGeneration}
    theirs = classes[kind].from_pretrained(folders / kind).eval()
    made = build(folders / kind)
    assert made.widths == {"image": WIDTH} and made.image_input.size == SIDE
    with torch.no_grad():
        hidden = theirs.vision_model(pixels()).last_hidden_state
        features = made.eval().encode_image(pixels(), tokens=True)
    torch.testing.assert_close(features.pooled, hidden[:, 0])
    torch.testing.assert_close(features.tokens, hidden[:, 1:])
    assert made.token_counts == {"image": (SIDE // PATCH) ** 2}
    one = pooled(made, pixels()[:1])
    assert one.shape == (1, WIDTH)


def test_a_vision_model_alone(folders):
    from transformers import BlipVisionModel

    theirs = BlipVisionModel.from_pretrained(folders / "vision").eval()
    with torch.no_grad():
        hidden = theirs(pixels()).last_hidden_state
    torch.testing.assert_close(pooled(build(folders / "vision"), pixels()), hidden[:, 0])


def test_texts(folders):
    from transformers import BlipForImageTextRetrieval

    made = build(folders / "itm", BOTH, max_words=6).eval()
    ids, mask = made.tokenize(["a photo of the bee", "ant"])
    assert ids.shape == (2, 6) and mask.sum(1).tolist() == [0, 3]
    theirs = BlipForImageTextRetrieval.from_pretrained(folders / "itm").eval()
    with torch.no_grad():
        hidden = theirs.text_encoder(ids, attention_mask=(~mask).long()).last_hidden_state
        features = made.encode_text(ids, mask, tokens=True)
        alone = made.encode_text(ids[1:, :3], mask[1:, :3])
    torch.testing.assert_close(features.pooled, hidden[:, 0])
    torch.testing.assert_close(alone.pooled, hidden[1:, 0])
    assert features.tokens.shape == (2, 6, WIDTH)


def test_another_size(folders):
    made = build(folders / "itm", image_size=2 * SIDE)
    assert pooled(made, pixels(2, 2 * SIDE)).shape == (2, WIDTH)
    with pytest.raises(UserError, match="a multiple of 8, the side of BLIP's patches"):
        build(folders / "itm", image_size=2 * SIDE + 1)


def authors_file(folder, path):
    """Write the vision model under the names of BLIP's authors."""
    found = {}
    for name, value in load_file(folder / "model.safetensors").items():
        if not name.startswith("vision_model."):
            continue
        name = name.removeprefix("vision_model.")
        for theirs, ours in {
            "embeddings.class_embedding": "cls_token", "embeddings.position_embedding": "pos_embed",
            "embeddings.patch_embedding": "patch_embed.proj", "encoder.layers.": "blocks.",
            "self_attn.projection": "attn.proj", "self_attn.qkv": "attn.qkv",
            "post_layernorm": "norm",
        }.items():  # fmt: skip
            name = name.replace(theirs, ours)
        found["visual_encoder." + re.sub(r"layer_norm([12])", r"norm\1", name)] = value
    torch.save({"model": {**found, "temp": torch.ones(())}}, path)
    return path


def test_a_file_of_the_authors(folders, tmp_path):
    made = build(authors_file(folders / "itm", tmp_path / "BLIP_base.pth"))
    torch.testing.assert_close(pooled(made, pixels()), pooled(build(folders / "itm"), pixels()))
    with pytest.raises(UserError, match="a single file, of which pictures' features alone"):
        build(tmp_path / "BLIP_base.pth", BOTH)
    torch.save({"fc.weight": torch.ones(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="holds no 'embeddings.patch_embedding.weight' of BLIP's"):
        build(tmp_path / "other.pth")


def test_towers_freeze_one_by_one(folders):
    made = build(folders / "itm", BOTH, freeze="text")
    assert frozen_modalities(made) == ("text",)
    assert not any(p.requires_grad for p in made.text.parameters())
    freeze_tower(made, "image")
    assert set(frozen_modalities(made)) == {"image", "text"} and not made.train().visual.training
    assert not any(p.requires_grad for p in made.parameters())


def test_the_fingerprint_is_of_the_weights(folders, tmp_path):
    shutil.copytree(folders / "itm", tmp_path / "moved")
    prints = [build(f).fingerprint for f in (folders / "itm", tmp_path / "moved")]
    prints.append(build(folders / "captioner").fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_refusals(folders, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    shutil.copytree(folders / "itm", tmp_path / "bert")
    told = json.loads((tmp_path / "bert" / "config.json").read_text())
    (tmp_path / "bert" / "config.json").write_text(json.dumps({**told, "model_type": "bert"}))
    shutil.copytree(folders / "vision", tmp_path / "cut")
    state = load_file(tmp_path / "cut" / "model.safetensors")
    del state["post_layernorm.weight"]
    save_file(state, tmp_path / "cut" / "model.safetensors")
    for weights, modalities, said in (
        (tmp_path / "empty", ("image",), "is no BLIP model: config.json"),
        (tmp_path / "bert", ("image",), "a model of type 'bert'; one of type blip"),
        (tmp_path / "cut", ("image",), "1 names are missing .first 'post_layernorm.weight'"),
        (folders / "captioner", BOTH, "holds no text encoder of BLIP"),
        (tmp_path / "gone.pth", ("image",), "does not exist"),
    ):
        with pytest.raises(UserError, match=said):
            build(weights, modalities)
    with pytest.raises(UserError, match="backbone.weights is not set"):
        build_backbone("blip", BlipConfig(), ("image",))
    monkeypatch.setattr(files, "hub_file", lambda repository, names: None)
    with pytest.raises(UserError, match="is no folder here, and it is neither in .* nor to"):
        build("nobody/has-this-blip")
