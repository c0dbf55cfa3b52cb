from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.batch import Features
from models.backbones.base import CachedBackbone
from models.layers.concept_head import (
    ConceptHead,
    ConceptHeadConfig,
    ConceptTransformer,
    TransformerBlock,
    common_width,
    concept_weights,
    gather_concepts,
    position_code,
)
from utils.errors import UserError

WIDTH, BITS = 16, 6


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_head(bits=BITS, **keys):
    torch.manual_seed(0)
    return ConceptHead(WIDTH, bits, ("image", "text"), ConceptHeadConfig(**keys))


@pytest.mark.parametrize("width", [1, 2, 7, 16])
def test_position_code_is_that_of_the_equation(width):
    code = position_code(5, width)
    assert code.shape == (5, width) and code.dtype == torch.float32
    for k in range(5):
        for column in range(width):
            angle = k / 10000 ** (2 * (column // 2) / width)
            wave = math.cos(angle) if column % 2 else math.sin(angle)
            assert code[k, column].item() == pytest.approx(wave / math.sqrt(width), abs=1e-7)


def weights_by_loops(activations, hidden, top_k):
    """Return the weights [B,L,K], each written from its definition."""
    batch, length, bits = activations.shape
    weight = torch.zeros(batch, length, bits)
    for b in range(batch):
        for k in range(bits):
            part = {}
            for token in range(length):
                values = activations[b, token].tolist()
                least = sorted(values, reverse=True)[min(top_k, bits) - 1]
                if not hidden[b, token] and values[k] > 0 and values[k] >= least:
                    part[token] = math.exp(values[k])
            for token, value in part.items():
                weight[b, token, k] = value / sum(part.values())
    return weight


@pytest.mark.parametrize("top_k", [1, 3, 6, 9])
def test_weights_are_those_of_the_definition(top_k):
    activations = (draws(4, 5, BITS) + 0.3).tanh()
    activations[0, 0] = 0.25  # all equal: every concept is kept, whatever top_k
    activations[0, 1] = torch.tensor([0.5, 0.5, 0.5, -0.1, 0.9, 0.0])
    activations[1, :, 2] = -0.3  # a concept without any token
    hidden = torch.zeros(4, 5, dtype=torch.bool)
    hidden[2, 3:] = True
    hidden[3] = True  # nothing is visible
    weight = concept_weights(activations.masked_fill(hidden[..., None], 0), top_k)
    torch.testing.assert_close(weight, weights_by_loops(activations, hidden, top_k))
    assert not weight[3].any() and not weight[1, :, 2].any()


@pytest.mark.parametrize(("batch", "length", "bits"), [(1, 1, 1), (1, 3, 1), (2, 1, 48)])
def test_no_size_is_squeezed(batch, length, bits):
    tokens, activations = draws(batch, length, WIDTH), draws(batch, length, bits).tanh()
    concepts = gather_concepts(tokens, concept_weights(activations, 8))
    assert concepts.shape == (batch, bits, WIDTH)
    made = make_head(bits)(Features(tokens[:, 0], tokens), "image")
    assert [v.shape for v in made] == [
        (batch, WIDTH), (batch, bits), (batch, bits, WIDTH), (batch, bits),
    ]  # fmt: skip


def test_hidden_tokens_are_never_looked_at():
    head, tokens = make_head(), draws(3, 5, WIDTH)
    mask = torch.arange(5) >= torch.tensor([[5], [2], [0]])
    made = head(Features(tokens.mean(1), tokens, mask), "text")
    spoilt = tokens.masked_fill(mask[..., None], 1e30)
    assert torch.equal(head.activations(spoilt, mask), head.activations(tokens, mask))
    assert not head.activations(tokens, mask)[mask].any()
    again = head(Features(tokens.mean(1), tokens + 100 * mask[..., None], mask), "text")
    assert torch.equal(again.token_code, made.token_code)
    assert bool(made.token_code.isfinite().all())  # the last row shows no token at all


def test_activations_choose_without_gradient():
    head, tokens = make_head(), draws(2, 4, WIDTH).requires_grad_()
    made = head(Features(draws(2, WIDTH), tokens), "image")
    made.token_code.sum().backward()
    assert all(p.grad is None for p in head.encoder.parameters())
    assert bool(tokens.grad.abs().sum() > 0)  # through the sums they are part of


def test_one_encoder_serves_both_modalities():
    head = make_head()
    features = Features(draws(2, WIDTH), draws(2, 4, WIDTH))
    image, text = head(features, "image"), head(features, "text")
    assert torch.equal(image.pooled_code, text.pooled_code)
    assert not torch.equal(image.token_code, text.token_code)


def by_pytorch(block, x):
    """Return what the block computes, by nn.MultiheadAttention and x · sigmoid(1.702 x)."""
    y = block.norm1(x)
    x = x + nn.MultiheadAttention.forward(block.attention, y, y, y, need_weights=True)[0]
    hidden = block.fc1(block.norm2(x))
    return x + block.fc2(hidden * torch.sigmoid(1.702 * hidden))


@pytest.mark.parametrize(("batch", "length"), [(3, 5), (1, 1)])
def test_a_block_equals_pytorch_s_attention_and_quick_gelu(batch, length):
    torch.manual_seed(1)
    block = TransformerBlock(WIDTH, heads=4).double()
    x = draws(batch, length, WIDTH).double().requires_grad_()
    parameters = [x, *block.parameters()]
    ours, theirs = block(x), by_pytorch(block, x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    upstream = draws(batch, length, WIDTH, seed=2).double()
    gradients = (torch.autograd.grad(y, parameters, upstream) for y in (ours, theirs))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_every_concept_has_a_bit_layer_of_its_own():
    torch.manual_seed(1)
    layer = ConceptTransformer(WIDTH, BITS, layers=1, heads=2)
    refined, code = layer(draws(3, BITS, WIDTH))
    for b in range(3):
        for k, own in enumerate(layer.bit_layers):
            assert code[b, k].item() == pytest.approx(own(refined[b, k]).tanh().item(), abs=1e-6)
    assert len(list(layer.bit_layers.parameters())) == 2 * BITS  # clipped one by one
    assert not any("position" in name for name in layer.state_dict())


def test_without_layers_there_is_position_and_bits_alone():
    layer = ConceptTransformer(WIDTH, BITS, layers=0, heads=2)
    concepts = draws(2, BITS, WIDTH)
    torch.testing.assert_close(layer(concepts)[0], concepts + position_code(BITS, WIDTH))


def test_the_encoder_is_residual_blocks_and_a_projection():
    encoder = make_head(mlp_layers=2).encoder
    x = draws(3, WIDTH)
    expected = x
    for block in encoder.blocks:
        normed = F.layer_norm(expected, (WIDTH,), block.norm.weight, block.norm.bias)
        hidden = normed @ block.fc1.weight.T + block.fc1.bias
        gelu = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        expected = expected + gelu @ block.fc2.weight.T + block.fc2.bias
    refined, activations = encoder(x)
    torch.testing.assert_close(refined, expected)
    torch.testing.assert_close(activations, (expected @ encoder.concept.weight.T).tanh())


def test_bfloat16_computes_about_the_same():
    head, features = make_head(), Features(draws(4, WIDTH), draws(4, 5, WIDTH))
    exact = head(features, "image")
    with torch.autocast("cpu", torch.bfloat16):
        rough = head(features, "image")
    torch.testing.assert_close(rough.pooled_code.float(), exact.pooled_code, rtol=0, atol=0.05)


def test_what_makes_no_sense_is_refused_in_a_sentence():
    with pytest.raises(UserError, match="gives none for text"):
        make_head()(Features(draws(2, WIDTH)), "text")
    with pytest.raises(UserError, match="attention_heads=3 does not divide the 16 features"):
        make_head(attention_heads=3)
    with pytest.raises(UserError, match="model.top_k=0 has to be at least 1"):
        ConceptHeadConfig(top_k=0)
    widths = {"image": 8, "text": 8}
    assert common_width(CachedBackbone(widths, widths, "x"), "MITH") == 8
    for tokens in ({"image": 12, "text": 8}, {"image": 12, "text": 12}):
        with pytest.raises(UserError, match="MITH passes .* widths of 8, 12;"):
            common_width(CachedBackbone(widths, tokens, "x"), "MITH")
