"""Tokens of a row as a sequence: what leads it, how long it is, and who does not tell."""

from __future__ import annotations

import pytest
import torch

from common.batch import Batch, Features
from models.backbones.base import CachedBackbone
from models.layers.token_sequence import token_count, token_sequence
from utils.errors import UserError


def backbone_of(widths, token_widths, counts=None):
    backbone = CachedBackbone(widths, token_widths, "toy")
    backbone.token_counts = counts or {}
    return backbone


def batch_of(rows, width, image_width, tokens=True):
    generator = torch.Generator().manual_seed(0)
    pictures = Features(
        torch.randn(rows, width, generator=generator),
        torch.randn(rows, 4, image_width, generator=generator),
    )
    words = torch.randn(rows, 6, width, generator=generator) if tokens else None
    hidden = torch.arange(6).expand(rows, 6) > 2
    return Batch(
        label=torch.ones(rows, 1), index=torch.arange(rows), image_features=pictures,
        text_features=Features(torch.zeros(rows, width), words, hidden if tokens else None),
    )  # fmt: skip


@pytest.mark.parametrize("rows", [1, 4, 5, 6])  # also as many rows as there are tokens
def test_the_class_token_leads_a_picture_and_hidden_words_stay(rows):
    batch = batch_of(rows, 8, 8)
    widths = {"image": 8, "text": 8}
    backbone = backbone_of(widths, widths, {"image": 4, "text": 6})
    image = token_sequence(backbone, batch, "image")
    assert image.shape == (rows, 5, 8) and token_count(backbone, "image") == 5
    assert torch.equal(image[:, 0], batch.image_features.pooled)
    assert torch.equal(image[:, 1:], batch.image_features.tokens)
    text = token_sequence(backbone, batch, "text")
    assert torch.equal(text, batch.text_features.tokens) and token_count(backbone, "text") == 6


def test_a_pooled_feature_of_another_width_is_left_out():
    backbone = backbone_of({"image": 8, "text": 8}, {"image": 3, "text": 8}, {"image": 4})
    image = token_sequence(backbone, batch_of(2, 8, 3), "image")
    assert image.shape == (2, 4, 3) and token_count(backbone, "image") == 4


def test_missing_tokens_and_counts_are_refused_in_a_sentence():
    widths = {"image": 8, "text": 8}
    backbone = backbone_of(widths, widths)
    with pytest.raises(UserError, match="no token features of the text.*choose another backbone"):
        token_sequence(backbone, batch_of(2, 8, 8, tokens=False), "text")
    with pytest.raises(UserError, match="does not tell how many image tokens"):
        token_count(backbone, "image")
