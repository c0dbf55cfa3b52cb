"""The hash layer of image hashing: with or without bias, as PyTorch draws it or small."""

import math

import pytest

from models.image.image_hash import ImageHashConfig
from tests.models.toys import WIDTH, make_model, toy_problem
from utils.errors import UserError

BITS = 64


def layer(**keys):
    return make_model("image_hash", toy_problem(BITS), **keys).heads["image"]


def test_as_pytorch_draws_it():
    head, bound = layer(), 1 / math.sqrt(WIDTH)
    for values in (head.weight, head.bias):
        assert values.abs().max() <= bound
        assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.2)


def test_without_bias():
    head = layer(bias=False)
    assert head.bias is None and head.weight.shape == (BITS, WIDTH)


def test_small():
    head = layer(init="small")
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.1) and not head.bias.any()


def test_small_needs_a_bias():
    with pytest.raises(UserError, match=r"model\.bias=true"):
        ImageHashConfig(bias=False, init="small")
