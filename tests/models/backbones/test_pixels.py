from __future__ import annotations

import zlib

import pytest
import torch

from common.batch import Batch
from models.backbones.build import build_backbone, frozen_modalities
from models.backbones.pixels import PixelsConfig
from utils.errors import UserError

BOTH = ("image", "text")


@pytest.fixture
def pixels():
    return build_backbone("pixels", PixelsConfig(size=8, text_width=32, max_words=4), BOTH)


@pytest.mark.parametrize("rows", [1, 5])
def test_shapes_and_values(pixels, rows):
    image = torch.rand(rows, 3, 8, 8)
    features = pixels.encode_image(image, tokens=True)
    assert torch.equal(features.pooled, image.flatten(1))
    assert features.tokens.shape == (rows, 16, 12)
    assert torch.equal(features.tokens[:, 1].reshape(rows, 3, 2, 2), image[:, :, :2, 2:4])
    assert pixels.encode_image(torch.rand(rows, 3, 24, 24)).pooled.shape == (rows, 192)
    assert pixels.widths == {"image": 192, "text": 32}
    assert pixels.token_widths == {"image": 12, "text": 32}
    assert pixels.token_counts == {"image": 16, "text": 4}


def test_words_are_counted_in_stable_bins(pixels):
    ids, mask = pixels.tokenize(["Dog dog, CAT!", "", "a b c d e f"])
    assert ids.shape == mask.shape == (3, 4)
    assert (~mask).sum(1).tolist() == [3, 0, 4]
    features = pixels.encode_text(ids, mask, tokens=True)
    expected = torch.zeros(32)
    for word in ("dog", "dog", "cat"):
        expected[zlib.crc32(word.encode()) % 32] += 1
    assert torch.equal(features.pooled[0], expected)
    assert features.pooled[1].sum() == 0
    torch.testing.assert_close(features.tokens.sum(1), features.pooled)
    assert torch.equal(features.mask, mask)


def test_dtype_follows_the_module_and_there_is_nothing_to_train(pixels):
    pixels.double()
    ids, mask = pixels.tokenize(["a word"])
    assert pixels.encode_text(ids, mask).pooled.dtype == torch.float64
    assert not list(pixels.parameters()) and not pixels.state_dict()
    assert frozen_modalities(pixels) == BOTH


def test_cached_features_pass_through(pixels):
    ids, mask = pixels.tokenize(["a word"])
    features = pixels.encode_text(ids, mask)
    batch = Batch(label=torch.ones(1, 1), index=torch.zeros(1).long(), text_features=features)
    assert pixels(batch, "text") is features


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="multiple of 4"):
        build_backbone("pixels", PixelsConfig(size=30), BOTH)
    marks = {build_backbone("pixels", PixelsConfig(size=s), BOTH).fingerprint for s in (8, 12, 8)}
    assert len(marks) == 2
