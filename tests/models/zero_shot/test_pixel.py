"""PIXEL: its network, what of it trains, and its loss against loops over pairs."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from common.batch import Batch, Features
from common.config import schema
from models.backbones.base import Backbone, CachedBackbone, ImageInput
from models.base import Outputs, Problem, Progress
from models.zero_shot.pixel import IMAGE_ATTRIBUTES, PIXEL, PixelConfig, PixelLoss, PixelLossConfig
from utils.errors import UserError

A, E, K, C, WIDTH, PLACES = 5, 3, 6, 4, 8, 4
SMALL = {"embedding": E, "text": {"layers": 1, "width": 8, "heads": 2}}


def problem_of(bits=K, classes=C, **keys):
    generator = torch.Generator().manual_seed(0)
    return Problem(
        bits, classes, attributes=torch.rand(classes, A, generator=generator),
        attribute_names=tuple(f"trait {a}" for a in range(A)),
        class_names=tuple(f"kind{c}" for c in range(classes)), generator=generator, **keys,
    )  # fmt: skip


def model_of(problem=None, backbone=None, **keys):
    torch.manual_seed(0)
    config = schema.build(PixelConfig, {**SMALL, **keys}, "model", str)
    backbone = backbone or CachedBackbone({"image": WIDTH}, {"image": WIDTH}, "", {"image": PLACES})
    return PIXEL(config, problem or problem_of(), backbone)


def batch_of(rows=6, classes=C, tokens=True, **extras):
    generator = torch.Generator().manual_seed(1)
    pooled = torch.randn(rows, WIDTH, generator=generator)
    cells = torch.randn(rows, PLACES, WIDTH, generator=generator) if tokens else None
    return Batch(
        label=torch.eye(classes)[torch.arange(rows) % classes], index=torch.arange(rows),
        image_features=Features(pooled, cells), extras=extras,
    )  # fmt: skip


def outputs_of(rows, seed=2):
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    return Outputs(
        image_code=torch.randn(rows, K, **options).requires_grad_(),
        image_attributes=torch.randn(rows, A, E, **options).requires_grad_(),
        text_attributes=torch.randn(rows, A, E, **options).requires_grad_(),
    )


def labels_of(rows):
    """Return labels: the first row has two, the last none."""
    label = torch.eye(C, dtype=torch.float64)[torch.arange(rows) % 3]
    label[0, 3] = 1
    label[-1] = 0
    return label


def loss_of(**keys):
    return PixelLoss(PixelLossConfig(**keys), problem_of()).double()


def unit(row):
    return row / row.norm()


def expected_terms(loss, outputs, label):
    """Return the three terms by loops over rows, classes, attributes and pairs."""
    config, problem = loss.config, problem_of()
    kept = [i for i in range(len(label)) if label[i].any()]
    entropies, errors = [], []
    for i in kept:
        logits = []
        for c in range(C):
            cosine = float(unit(outputs.image_code[i]) @ unit(loss.centroids[c]))
            if config.form == "cosine":
                logits.append(config.scale * (cosine - config.margin * float(label[i, c])))
            else:
                angle = math.acos(max(-0.99999, min(cosine, 0.99999)))
                logits.append(config.scale * math.cos(angle + config.margin * float(label[i, c])))
        normal = math.log(sum(math.exp(z) for z in logits))
        own = [c for c in range(C) if label[i, c]]
        entropies.append(sum(normal - logits[c] for c in own) / len(own))
        wanted = unit(problem.attributes[own[0]])
        scores = outputs.image_attributes[i].mean(1)
        errors += [(float(scores[a]) - float(wanted[a])) ** 2 for a in range(A)]
    v, t = (
        torch.stack([torch.stack([unit(e) for e in row]) for row in outputs[name]])
        for name in ("image_attributes", "text_attributes")
    )
    distances = []
    for n, i in enumerate(kept):
        for j in kept[n + 1 :]:
            dv, dt = v[i] - v[j], t[i] - t[j]
            value = float((dv - loss.text_scale * dt).pow(2).mean())
            if (label[i] * label[j]).any():
                power = 1 if config.variant == "released" else 2
                value += 4 * float(dv.pow(power).mean() + dt.pow(power).mean())
            distances.append(value)
    pairs = len(kept) * (len(kept) - 1) / 2
    return {
        "cls": sum(entropies) / len(kept),
        "regression": config.w_regression * sum(errors) / len(errors),
        "semantic": config.w_semantic * sum(distances) / pairs,
    }


@pytest.mark.parametrize("variant", ["fixed", "released"])
@pytest.mark.parametrize("form", ["cosine", "arc"])
def test_the_loss_is_that_of_loops(variant, form):
    loss = loss_of(variant=variant, form=form, margin=0.3, w_semantic=1.7, w_regression=0.6)
    with torch.no_grad():
        loss.text_scale.fill_(0.8)
        outputs, label = outputs_of(8), labels_of(8)
        terms = loss(outputs, Batch(label, torch.arange(8)), Progress())
        for name, value in expected_terms(loss, outputs, label).items():
            assert float(terms[name]) == pytest.approx(value, rel=1e-5), name
    assert set(terms) == {"cls", "semantic", "regression"}


def test_gradients_are_those_of_differences():
    loss, label = loss_of(), labels_of(4)
    outputs = outputs_of(4)

    def total(code, image, text, scale):
        loss.text_scale = scale
        given = Outputs(image_code=code, image_attributes=image, text_attributes=text)
        return loss(given, Batch(label, torch.arange(4)), Progress()).total()

    del loss.text_scale
    scale = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(total, (*outputs.values(), scale))


def test_fixed_is_never_negative_and_ignores_order_released_is_neither():
    label = torch.eye(C, dtype=torch.float64)[[0, 0, 1, 1]]
    order = [1, 0, 3, 2]
    values = {}
    for variant in ("fixed", "released"):
        loss = loss_of(variant=variant)
        found = []
        for seed in range(20):
            rows = outputs_of(4, seed)
            image, text = rows.image_attributes, rows.text_attributes
            for at in (range(4), order):
                at = list(at)
                found.append(float(loss.semantic_distance(image[at], text[at], label[at]).detach()))
        values[variant] = found
    pairs = {v: list(zip(found[::2], found[1::2], strict=True)) for v, found in values.items()}
    assert min(values["fixed"]) >= 0
    assert all(a == pytest.approx(b) for a, b in pairs["fixed"])
    assert any(a != pytest.approx(b) for a, b in pairs["released"])


@pytest.mark.parametrize("rows", [1, 2])
def test_few_rows(rows):
    outputs, label = outputs_of(rows), torch.eye(C, dtype=torch.float64)[[0] * rows]
    terms = loss_of()(outputs, Batch(label, torch.arange(rows)), Progress())
    assert all(bool(term.isfinite()) for term in terms.values())
    assert bool(terms.semantic == 0) == (rows == 1)


def test_the_heads_are_the_layers_of_the_equations():
    model, batch = model_of().eval(), batch_of()
    outputs = model(batch)
    head, features = model.image_attributes, batch.image_features
    convolution = nn.Conv2d(WIDTH, A, 1)
    convolution.weight.data = head.features.weight.data[..., None, None]
    convolution.bias.data = head.features.bias.data
    maps = convolution(features.tokens.mT.unflatten(2, (2, 2))).flatten(2)  # [B,A,4]
    wanted = maps @ head.places.weight.mT + head.places.bias
    torch.testing.assert_close(outputs.image_attributes, wanted)
    states, side = model.encode_texts(batch), model.text_attributes
    embedded = states @ side.features.weight.mT + side.features.bias  # [B,L,E]
    wanted = torch.einsum("al,ble->bae", side.places.weight, embedded)
    torch.testing.assert_close(outputs.text_attributes, wanted + side.places.bias[:, None])
    codes = features.pooled @ model.hash_head.weight.mT + model.hash_head.bias
    torch.testing.assert_close(outputs.image_code, codes)
    torch.testing.assert_close(model.encode(batch, "image"), codes)


def test_texts_are_of_the_first_label_or_of_the_pictures_own_attributes():
    model, batch = model_of().eval(), batch_of(rows=3)
    plain = model(batch).text_attributes
    both = dataclasses.replace(batch, label=batch.label.clone())
    both.label[0, 3] = 1
    torch.testing.assert_close(model(both).text_attributes, plain)
    own = {IMAGE_ATTRIBUTES: torch.ones(3, A)}
    assert not torch.allclose(model(batch_of(rows=3, **own)).text_attributes, plain)


def test_words_are_hidden_and_swapped_in_training_only():
    model = model_of(mask_rate=0.25, swap_rate=0.125)
    ids = torch.arange(2, model.encoder.words.num_embeddings).repeat(400, 100)
    hidden = torch.zeros_like(ids, dtype=torch.bool)
    hidden[0] = True
    noisy = model.train()._noisy(ids, hidden)
    assert torch.equal(noisy[0], ids[0])
    masked = noisy[1:] == model.encoder.mask_id
    assert float(masked.double().mean()) == pytest.approx(0.25, abs=0.01)
    swapped = (noisy[1:] != ids[1:]) & ~masked
    assert float(swapped.double().mean()) == pytest.approx(0.125, abs=0.02)
    assert torch.equal(model.eval()._noisy(ids, hidden), ids)


def test_words_hidden_once_are_the_same_at_every_step():
    model = model_of(mask_once=0.4, mask_rate=0.0, swap_rate=0.2).train()
    ids, hidden = model.sentences(torch.tensor([0, 1, 1]))
    index = torch.tensor([7, 3, 8])
    once = model._hidden_once(ids, hidden, index)
    assert torch.equal(once, model._hidden_once(ids, hidden, index))
    assert not torch.equal(once[1], once[2])  # one class, two rows
    opening = len(model.sentences.opening)
    assert torch.equal(once[:, :opening], ids[:, :opening])
    assert torch.equal(once[hidden], ids[hidden])
    for row in range(3):
        words = int((~hidden[row]).sum()) - opening
        assert int((once[row] == model.encoder.mask_id).sum()) == int(words * 0.4)
    assert torch.equal(model._noisy(once, hidden), once)  # nothing more is swapped


def test_learned_words_are_never_hidden_and_learn():
    model = model_of(prompt="learned", context=2, mask_rate=1.0).train()
    size = model.encoder.words.num_embeddings
    ids = torch.tensor([[size, size + 1, 2]])
    noisy = model._noisy(ids, torch.zeros_like(ids, dtype=torch.bool))
    assert noisy.tolist() == [[size, size + 1, model.encoder.mask_id]]
    model(batch_of()).text_attributes.sum().backward()
    assert bool((model.learned.vectors.grad[:2] != 0).any())


def test_released_leaves_the_attribute_head_as_drawn():
    for variant, trained in (("released", False), ("fixed", True)):
        model = model_of(variant=variant)
        assert {p.requires_grad for p in model.image_attributes.parameters()} == {trained}
    model = model_of(variant="released", adapter=4)
    model(batch_of()).image_attributes.sum().backward()
    assert model.adapter.outer.weight.grad is not None  # what lies before it does learn


def test_the_adapter_joins_both_heads_and_starts_as_nothing():
    plain, model, batch = model_of(), model_of(adapter=4), batch_of()
    model.hash_head, model.image_attributes = plain.hash_head, plain.image_attributes
    for name in ("image_code", "image_attributes"):
        torch.testing.assert_close(model(batch)[name], plain(batch)[name])
        model.zero_grad()
        model(batch)[name].sum().backward()
        assert bool((model.adapter.outer.weight.grad != 0).any())


def test_an_encoder_without_tokens_is_a_map_of_one_place():
    backbone = CachedBackbone({"image": WIDTH}, {"image": 3}, "")
    outputs = model_of(backbone=backbone, adapter=4)(batch_of(tokens=False))
    assert outputs.image_attributes.shape == (6, A, E)


class Small(Backbone):
    """A convolution with batch norm."""

    widths, token_widths = {"image": WIDTH}, {"image": WIDTH}
    image_input = ImageInput(8, (0.5,) * 3, (0.5,) * 3)

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, WIDTH, 4, stride=4), nn.BatchNorm2d(WIDTH))

    def encode_image(self, image, tokens=False):
        cells = self.layers(image).flatten(2).mT
        return Features(cells.mean(1), cells if tokens else None)


def test_a_trained_encoder_keeps_its_batch_statistics():
    model = model_of(backbone=Small()).train()
    before = model.backbone.layers[1].running_mean.clone()
    batch = batch_of()
    batch.image_features, batch.image = None, torch.randn(6, 3, 8, 8) + 3
    model(batch).image_code.sum().backward()
    assert torch.equal(model.backbone.layers[1].running_mean, before)
    assert model.backbone.layers[1].weight.grad is not None and model.training
    groups = model.param_groups()
    assert set(groups) == {"backbone", "head", "text"}
    assert len(groups["backbone"]) == 4


def test_what_training_knew_is_in_the_result():
    assert "names and attributes of the trained" in model_of().protocol_notes({})["class_knowledge"]


def test_refusals():
    bare = Problem(K, C)
    for build in (lambda: model_of(bare), lambda: PixelLoss(PixelLossConfig(), bare)):
        with pytest.raises(UserError, match="PIXEL needs the attributes of classes"):
            build()
    with pytest.raises(UserError, match="model.context=0 leaves nothing to learn"):
        model_of(prompt="learned", context=0)
    uneven = CachedBackbone({"image": WIDTH}, {"image": 5}, "", {"image": PLACES})
    with pytest.raises(UserError, match="tokens as wide as the pooled feature"):
        model_of(backbone=uneven, adapter=4)


def test_the_sizes_of_the_release():
    config = schema.build(
        PixelConfig, {"text": {"width": 24, "heads": 12}, "text_length": 180}, "model", str
    )
    backbone = CachedBackbone({"image": WIDTH}, {"image": WIDTH}, "", {"image": 49})
    model = PIXEL(config, problem_of(), backbone)
    assert model.text_attributes.places.weight.shape == (A, 180)
    assert model.text_attributes.features.weight.shape == (512, 24)
    assert model.image_attributes.features.weight.shape == (A, WIDTH)
    assert model.image_attributes.places.weight.shape == (512, 49)
    assert len(model.encoder.network.encoder.layer) == 6
