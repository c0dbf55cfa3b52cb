from __future__ import annotations

import math

import pytest
import torch

from models.base import Outputs, Progress
from models.cross_modal.baseline import BaselineLoss, BaselineLossConfig, quantization
from tests.golden.adapters._common import label_batch
from tests.models.toys import make_model, toy_batch, toy_problem


def terms_of(image, text, label, **keys):
    outputs = Outputs(image_code=image, text_code=text)
    return BaselineLoss(BaselineLossConfig(**keys))(outputs, label_batch(label), Progress())


@pytest.mark.parametrize("scale", [1.0, 10.0], ids=["inside", "cut"])
def test_terms_follow_the_equations(scale):
    generator = torch.Generator().manual_seed(0)
    image, text = scale * torch.randn(2, 6, 8, generator=generator, dtype=torch.float64)
    label = (torch.rand(6, 3, generator=generator) < 0.4).double()
    pairs, cut = [], 0
    for i in range(6):
        for j in range(6):
            product = sum(a * c for a, c in zip(image[i].tolist(), text[j].tolist(), strict=True))
            cut += abs(product) > 64
            theta = 0.5 * min(max(product, -64.0), 64.0)
            shared = any(a == b == 1 for a, b in zip(label[i], label[j], strict=True))
            pairs.append(math.log(1 + math.exp(theta)) - shared * theta)
    assert bool(cut) == (scale > 1)
    quan = 0.0
    for code in (image, text):
        gaps = [(v - math.copysign(1, v)) ** 2 for v in code.flatten().tolist()]
        quan += sum(gaps) / len(gaps) / 2
    terms = terms_of(image, text, label, quan_alpha=0.25)
    assert terms.pair.item() == pytest.approx(sum(pairs) / 36)
    assert terms.quan.item() == pytest.approx(0.25 * quan)
    backwards = terms_of(text, image, label, quan_alpha=0.25)
    torch.testing.assert_close(backwards.total(), terms.total())


def test_products_beyond_the_cut_pass_no_gradient():
    image, text = torch.full((1, 80), 1.0, requires_grad=True), torch.ones(1, 80)
    terms = terms_of(image, text, torch.zeros(1, 1))
    assert terms.pair.item() == pytest.approx(32.0)
    (gradient,) = torch.autograd.grad(terms.pair, image)
    assert gradient.abs().sum() == 0


def test_codes_of_plus_and_minus_one_are_quantised():
    assert quantization(torch.tensor([[1.0, -1.0]])) == 0
    assert quantization(torch.tensor([[0.5, -0.5]])) == 0.25


def test_every_modality_has_a_head_of_its_own():
    model, batch = make_model("baseline", toy_problem(16)).eval(), toy_batch()
    pooled = batch.image_features.pooled
    assert not torch.equal(model.heads["image"](pooled), model.heads["text"](pooled))
    torch.testing.assert_close(model.encode(batch, "image"), model.heads["image"](pooled))
    torch.testing.assert_close(
        model.encode(batch, "text"), model.heads["text"](batch.text_features.pooled)
    )


@pytest.mark.parametrize("modality", ["image", "text"])
def test_weights_start_within_the_bound_of_their_fan_out(modality):
    head = make_model("baseline", toy_problem(64), hidden=128).heads[modality]
    for layer, fan_out in ((head[0], 128), (head[3], 64)):
        bound = math.sqrt(6 / fan_out)
        assert 0.98 * bound < layer.weight.abs().max() <= bound
        assert layer.bias.abs().sum() == 0
