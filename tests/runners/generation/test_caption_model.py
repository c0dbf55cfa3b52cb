"""Captioning: what a caption depends on, pictures left out, models of the wrong kind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from runners.generation.caption_model import CaptionModel
from runners.generation.options import Options
from tests.runners.generation.tiny import WORDS
from utils.errors import UserError


@pytest.fixture
def options(models) -> Options:
    return Options(
        "toy", "vtph", Path("out"), captioner=str(models / "blip"), batch_size=4, device="cpu"
    )


@pytest.fixture(scope="module")
def photos() -> dict[int, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [(16, 16), (9, 30), (40, 20), (1, 1), (64, 64)]
    return {i: rng.integers(0, 256, (*s, 3), dtype=np.uint8) for i, s in enumerate(sizes)}


def captions(model: CaptionModel, photos: dict) -> dict[int, str | None]:
    return dict(pair for batch in model.caption(list(photos), photos.get) for pair in batch)


def test_a_caption_depends_on_its_picture_only(options, photos):
    together = captions(CaptionModel(options), photos)
    alone = captions(
        CaptionModel(dataclasses.replace(options, batch_size=1)), dict(reversed(photos.items()))
    )
    assert together == alone
    assert len(set(together.values())) > 1
    assert set(" ".join(together.values()).split()) <= set(WORDS)


def test_it_is_greedy(options, photos):
    """Word for word the likeliest, from the model called directly."""
    import torch
    from transformers import BlipForConditionalGeneration, BlipProcessor

    model = BlipForConditionalGeneration.from_pretrained(options.captioner).eval()
    processor = BlipProcessor.from_pretrained(options.captioner)
    text = model.config.text_config
    pixels = processor.image_processor(photos[0], return_tensors="pt")["pixel_values"]
    ids = [text.bos_token_id]
    with torch.no_grad():
        seen = model.vision_model(pixels)[0]
        while len(ids) <= 30 and ids[-1] != text.sep_token_id:
            scores = model.text_decoder(
                input_ids=torch.tensor([ids]), encoder_hidden_states=seen
            ).logits
            ids.append(int(scores[0, -1].argmax()))
    expected = processor.tokenizer.decode(ids, skip_special_tokens=True)
    assert captions(CaptionModel(options), {0: photos[0]}) == {0: expected}


def test_pictures_left_out(options, photos):
    some = {**photos, 1: None, 4: None}
    texts = captions(CaptionModel(options), some)
    assert [key for key, text in texts.items() if text is None] == [1, 4]
    assert texts[2] == captions(CaptionModel(options), photos)[2]
    assert captions(CaptionModel(options), {0: None}) == {0: None}


def test_models_of_the_wrong_kind(options, models, tmp_path):
    for model, part in {
        str(tmp_path / "none"): "does not exist; a BLIP captioner",
        str(models / "sd"): "is not a BLIP captioner",
        str(models / "sd" / "text_encoder"): "holds a model of type 'clip_text_model'",
    }.items():
        with pytest.raises(UserError, match="--captioner") as error:
            CaptionModel(dataclasses.replace(options, captioner=model))
        assert part in str(error.value)
