"""UMoED: choices and their bits, the mixture of experts, the loss; what is refused."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from common.batch import Batch, Features
from common.codes import sign
from models.backbones.base import CachedBackbone
from models.base import Outputs, Problem, Progress
from models.cross_modal.umoed import (
    UMoED,
    UMoEDLoss,
    UMoEDLossConfig,
    UMoEDModelConfig,
    choice_codes,
)
from models.layers.soft_moe import SoftMoE
from utils.errors import UserError

LIGHT = {"layers": 2, "heads": 2, "feedforward": 12, "experts": 2, "slots": 3}


def model_of(bits, widths=None, **keys):
    torch.manual_seed(0)
    widths = widths or {"image": 8, "text": 8}
    backbone = CachedBackbone(widths, widths, "toy")
    return UMoED(UMoEDModelConfig(**{**LIGHT, **keys}), Problem(bits, 4), backbone)


def batch_of(rows, image=8, text=8):
    generator = torch.Generator().manual_seed(1)
    return Batch(
        label=torch.eye(4)[torch.arange(rows) % 4], index=torch.arange(rows),
        image_features=Features(torch.randn(rows, image, generator=generator),
                                torch.randn(rows, 3, image, generator=generator)),
        text_features=Features(torch.randn(rows, text, generator=generator),
                               torch.randn(rows, 5, text, generator=generator)),
    )  # fmt: skip


def bits_of(word, size):
    return [1 if (word >> (size - 1 - bit)) & 1 else -1 for bit in range(size)]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_the_sign_is_the_bit_of_the_chosen_word(size):
    generator = torch.Generator().manual_seed(size)
    choices = torch.randn(5, 3, 2**size, generator=generator)
    expected = [sum((bits_of(int(m.argmax()), size) for m in row), []) for row in choices]
    assert sign(choice_codes(choices)).int().tolist() == expected


def test_ties_go_to_the_first_word():
    for values in itertools.product([0.0, 1.0], repeat=4):
        choices = torch.tensor(values).reshape(1, 1, 4)
        first = values.index(max(values))
        assert sign(choice_codes(choices)).int().tolist() == [bits_of(first, 2)]
        assert sign(choice_codes(choices.half())).int().tolist() == [bits_of(first, 2)]


def test_two_words_give_the_difference_of_probabilities_and_words_a_gradient():
    choices = torch.randn(4, 6, 2, generator=torch.Generator().manual_seed(0))
    probabilities = choices.softmax(2)
    expected = probabilities[..., 1] - probabilities[..., 0]
    torch.testing.assert_close(choice_codes(choices), expected)
    words = torch.randn(4, 2, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(choice_codes, words)


@pytest.mark.parametrize(("bits", "size"), [(1, 1), (16, 1), (48, 48), (48, 6), (64, 64), (6, 3)])
def test_every_group_size_works(bits, size):
    model, batch = model_of(bits, set_size=size).eval(), batch_of(3)
    outputs = model(batch)
    assert outputs.image_choices.shape == (3, size, 2 ** (bits // size))
    assert model.encode(batch, "text").shape == outputs.text_code.shape == (3, bits)


def test_one_query_for_each_bit_unless_told():
    assert model_of(48).choices(batch_of(2), "image").shape == (2, 48, 2)


def test_tokens_of_other_widths_are_projected():
    model = model_of(4, {"image": 6, "text": 8}, hidden=None)
    assert set(model.project) == {"image"}
    assert model(batch_of(2, image=6)).image_code.shape == (2, 4)
    assert set(model_of(4, hidden=16).project) == {"image", "text"}


def test_the_mixture_is_that_of_the_equations():
    torch.manual_seed(0)
    moe = SoftMoE(width=5, out_width=4, experts=3, slots=2).double()
    tokens = torch.randn(2, 6, 5, dtype=torch.float64)
    y = torch.zeros(2, 6, 4, dtype=torch.float64)
    logits = torch.einsum("bmf,fnp->bmnp", tokens, moe.phi)
    combine = logits.flatten(2).softmax(2).unflatten(2, (3, 2))
    for b, n, p in itertools.product(range(2), range(3), range(2)):
        slot = (logits[b, :, n, p].softmax(0)[:, None] * tokens[b]).sum(0)
        made = slot @ moe.weight[n] + moe.bias[n]
        y[b] += combine[b, :, n, p][:, None] * made
    torch.testing.assert_close(moe(tokens), y)


def test_the_mixture_starts_within_the_released_bounds():
    moe = SoftMoE(width=128, out_width=32, experts=4, slots=4)
    for parameter, bound in ((moe.phi, 1 / 4), (moe.weight, 1 / 64), (moe.bias, 1 / 64)):
        assert 0.9 * bound < float(parameter.detach().abs().max()) <= bound


def test_the_layer_is_that_of_pytorch_but_for_the_mixture():
    layer = model_of(4).decoder.layers[0].eval()
    theirs = torch.nn.TransformerDecoderLayer(8, 2, 12, batch_first=True).eval()
    theirs.self_attn, theirs.multihead_attn = layer.self_attention, layer.cross_attention
    theirs.norm1, theirs.norm2, theirs.norm3 = layer.norms
    theirs.linear1, theirs.linear2 = layer.linear, layer.moe
    x, tokens = torch.randn(2, 4, 8), torch.randn(2, 5, 8)
    torch.testing.assert_close(layer(x, tokens), theirs(x, tokens))


def test_both_modalities_together_are_each_their_own():
    model = model_of(4, {"image": 6, "text": 8}, hidden=8).eval()
    batch = batch_of(3, image=6)
    outputs = model(batch)
    for modality in ("image", "text"):
        torch.testing.assert_close(outputs[f"{modality}_choices"], model.choices(batch, modality))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("half", [False, True])
def test_every_parameter_gets_a_gradient(dropout, half):
    model, batch = model_of(4, dropout=dropout).train(), batch_of(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        outputs = model(batch)
    (outputs.image_choices.float() ** 2 + outputs.text_choices.float() ** 2).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name


def test_dropout_thins_in_training_alone():
    model, batch = model_of(4), batch_of(3)
    first, second = (model.train().choices(batch, "image") for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (model.eval().choices(batch, "image") for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("form", ["cosine", "euclidean", "smooth_chamfer", "chamfer", "max", "avg"])
@pytest.mark.parametrize("sharpness", [0.3, None])
def test_every_distance_is_finite_and_symmetric(form, sharpness):
    entries = [F.normalize(torch.randn(5, 4, 2, dtype=torch.float64), dim=2) for _ in range(2)]
    loss = UMoEDLoss(UMoEDLossConfig(distance=form, sharpness=sharpness))
    there, back = loss.distance(*entries), loss.distance(*entries[::-1])
    assert bool((there >= 0).all())
    torch.testing.assert_close(there, back.mT)


@pytest.mark.parametrize(("rows", "queries", "words"), [(5, 4, 2), (1, 1, 2), (4, 2, 16)])
def test_the_terms_are_those_of_the_equations(rows, queries, words):
    generator = torch.Generator().manual_seed(0)
    image, text = (
        torch.randn(rows, queries, words, generator=generator, dtype=torch.float64)
        for _ in range(2)
    )
    label = torch.eye(2, dtype=torch.float64)[torch.arange(rows) % 2]
    batch = Batch(label=label, index=torch.arange(rows))
    outputs = Outputs(image_choices=image, text_choices=text)
    terms = UMoEDLoss(UMoEDLossConfig())(outputs, batch, Progress())
    e, f = F.normalize(image, dim=2), F.normalize(text, dim=2)
    p, q = (e / 0.3).softmax(2), (f / 0.3).softmax(2)
    distance = [[1 - float((a * b).sum()) / queries for b in q] for a in p]
    shared = (label @ label.T).tolist()
    # one label each: w is 1 over the ideal gain of as many ones as there are rows of the class
    gain = [sum(1 / math.log2(r + 2) for r in range(int(sum(row)))) for row in shared]
    triples = [
        (distance[a][i] - distance[a][n] + 0.1) / gain[a]
        for a, i, n in itertools.product(range(rows), repeat=3)
        if shared[a][i] and not shared[a][n]
    ]
    active = [t for t in triples if t > 1e-16]
    expected = sum(active) / max(len(active), 1) / 4
    assert float(terms.token_i2t) == pytest.approx(expected, rel=1e-9)
    crowding = sum(
        math.exp(-20 * float((row[m] - row[n]).pow(2).sum()))
        for row in e
        for m, n in itertools.combinations(range(queries), 2)
    )
    pairs = max(queries * (queries - 1) / 2, 1)
    assert float(terms.div_image) == pytest.approx(0.8 / 3 * crowding / rows / pairs, rel=1e-9)


@pytest.mark.parametrize(
    ("bits", "keys", "words"),
    [
        (16, {"set_size": 5}, "set_size=5 does not fit bits=16.*give 16 or 8 or 4 or 2 or 1"),
        (48, {"set_size": 16}, "each query writes 1, 2, 4, 8 or 16 bits"),
        (32, {"set_size": 0}, "set_size=0"),
        (16, {"dropout": 1.0}, "model.dropout=1.0 is no share to leave out"),
        (16, {"heads": 3}, "heads=3 does not divide the decoder's width 8"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(bits, keys, words):
    with pytest.raises(UserError, match=words):
        model_of(bits, **keys)
