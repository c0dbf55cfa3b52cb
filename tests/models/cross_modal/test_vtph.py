from __future__ import annotations

import math

import pytest
import torch

from common.batch import Batch, Features
from common.config.run_config import compose
from models.base import Outputs, Progress
from models.cross_modal.vtph import (
    Prompts,
    VTPHConfig,
    VTPHLoss,
    VTPHLossConfig,
    jeffreys_mean,
    jensen_shannon,
    text_triplet,
)
from tests.models.cross_modal.test_mith import draws, entropy
from tests.models.toys import ROWS, WIDTH, make_loss, make_model, take, toy_batch, toy_problem
from utils.errors import UserError

BITS = 5


def softmax(row):
    total = sum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


def cosine(a, b):
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def other_features(seed, rows=ROWS, tokens=4):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(rows, tokens, WIDTH, generator=generator)
    return Features(drawn.mean(1), drawn, torch.zeros(rows, tokens, dtype=torch.bool))


def batch_with(**others):
    """Return the toy batch; ``second=seed`` gives it captions, ``virtual=seed`` pictures too."""
    batch = toy_batch()
    for name, seed in others.items():
        image = other_features(seed + 100) if name == "virtual" else None
        batch.auxiliary[name] = Batch(
            batch.label, batch.index, image_features=image, text_features=other_features(seed)
        )
    return batch


def test_affinities_are_those_of_the_equations():
    first, second = draws(3, 7, seed=0), 2 * draws(3, 7, seed=1)
    for n in range(3):
        p, q = softmax(first[n].tolist()), softmax(second[n].tolist())
        pairs = list(zip(p, q, strict=True))
        jeffreys = sum((a - b) * (math.log(a) - math.log(b)) for a, b in pairs)
        middle = sum(
            a * math.log(2 * a / (a + b)) + b * math.log(2 * b / (a + b)) for a, b in pairs
        )
        assert jeffreys_mean(first, second)[n].item() == pytest.approx(jeffreys / 7)
        assert jensen_shannon(first, second)[n].item() == pytest.approx(middle / 2)
    assert jeffreys_mean(first, first).abs().max() == 0
    assert jensen_shannon(first, first).abs().max() < 1e-15


def test_both_affinities_give_near_texts_the_same_temperature():
    text = draws(4, 64, seed=0)
    caption = text + 0.05 * draws(4, 64, seed=1)
    released, figure = (
        VTPHLoss(VTPHLossConfig(affinity=name), toy_problem(BITS)).temperatures(text, caption)
        for name in ("jeffreys_mean", "js")
    )
    assert (released > 0.07).all()
    torch.testing.assert_close(released - 0.07, figure - 0.07, rtol=0.01, atol=0)


def test_the_contrast_divides_by_the_temperature_of_the_text():
    loss = VTPHLoss(VTPHLossConfig(gamma=3.0), toy_problem(BITS)).double()
    image, text = (torch.nn.functional.normalize(draws(4, 6, seed=s), dim=1) for s in (0, 1))
    feature, second = draws(4, 6, seed=2), draws(4, 6, seed=3)
    outputs = Outputs(
        image_pooled=image, text_pooled=text, text_feature=feature, second_feature=second
    )
    affinity = jeffreys_mean(feature, second)
    matrix = [
        [float(image[n] @ text[m]) / (0.07 + 3 * float(affinity[m])) for m in range(4)]
        for n in range(4)
    ]
    columns = [list(column) for column in zip(*matrix, strict=True)]
    found = loss.contrast(outputs, toy_batch()).item()
    assert found == pytest.approx((entropy(matrix) + entropy(columns)) / 2)


@pytest.mark.parametrize("rows", [1, 5])
def test_the_triplet_takes_every_negative_both_ways(rows):
    text, caption = draws(rows, 6, seed=0), draws(rows, 6, seed=1)
    expected = 0.0
    for n in range(rows):
        for m in range(rows):
            if n != m:
                apart = cosine(text[n], caption[m])
                expected += max(0.0, 1 + apart - cosine(text[n], caption[n]))
                expected += max(0.0, 1 + apart - cosine(text[m], caption[m]))
    assert text_triplet(text, caption, 1.0).item() == pytest.approx(expected / rows)


def test_the_temperature_is_a_constant_and_the_triplet_trains_the_adapter_alone():
    model, loss = make_model("vtph", toy_problem(16)), make_loss("vtph", toy_problem(16))
    batch = batch_with(second=7)
    outputs = model(batch)
    assert not loss.temperatures(outputs.text_feature, outputs.second_feature).requires_grad
    loss(outputs, batch, Progress()).triplet.backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached and all(name.startswith("prompts.adapter.") for name in reached)


def test_a_text_is_gated_by_the_picture_and_sees_the_caption():
    torch.manual_seed(0)
    prompts = Prompts(WIDTH, VTPHConfig()).eval()
    image, text, caption = (other_features(seed, 3) for seed in (0, 1, 2))
    gate = prompts.channel_gate(image)
    torch.testing.assert_close(gate.sum(1), torch.ones(3))
    assert text.tokens is not None and caption.tokens is not None
    prompted = prompts.adapter(text.pooled)
    for n in range(3):
        gated = torch.stack([token * gate[n] for token in text.tokens[n]])
        sequence = torch.cat([prompted[n : n + 1], gated, caption.tokens[n]])
        expected = prompts.transformers["text"](sequence[None])[0]
        found = prompts.text(prompted, text, image, caption)
        torch.testing.assert_close(found.pooled[n], expected[0])
        torch.testing.assert_close(found.tokens[n], expected[1:5])
        alone = torch.cat([prompted[n : n + 1], text.tokens[n]])
        expected = prompts.transformers["text"](alone[None])[0]
        torch.testing.assert_close(prompts.text(prompted, text).pooled[n], expected[0])
    assert prompts.text(prompted, text).mask is text.mask


def test_without_captions_a_text_meets_itself():
    model, batch = make_model("vtph", toy_problem(16)).eval(), toy_batch()
    outputs = model(batch)
    assert torch.equal(outputs.second_feature, outputs.text_feature)
    assert torch.equal(
        make_loss("vtph", toy_problem(16)).temperatures(
            outputs.text_feature, outputs.second_feature
        ),
        torch.full((ROWS,), 0.07),
    )


@torch.no_grad()
def test_some_training_batches_may_have_their_texts_alone():
    model = make_model("vtph", toy_problem(16), alone_share=0.5, adapter_dropout=0.0)
    batch = batch_with(second=7)
    alone = model.encode(toy_batch(), "text")
    paired = model.eval()(batch).text_code  # chance has no part in evaluation
    model.train()
    torch.manual_seed(0)
    found = [model(batch).text_code for _ in range(40)]
    assert 10 <= sum(torch.equal(code, alone) for code in found) <= 30
    assert all(torch.equal(code, alone) or torch.equal(code, paired) for code in found)


@torch.no_grad()
def test_what_a_text_is_encoded_with():
    paired = make_model("vtph", toy_problem(16)).eval()
    alone = make_model("vtph", toy_problem(16), db_text="text_only").eval()

    def code(model, **others):
        return model.encode(batch_with(**others), "text")

    own = code(paired)
    assert torch.equal(code(paired, second=7), paired(batch_with(second=7)).text_code)
    assert not torch.equal(code(paired, second=7), own)
    assert torch.equal(code(alone, second=7), own)
    for model in (paired, alone):  # what a query may know does not depend on the database
        virtual = code(model, virtual=8)
        assert torch.equal(code(model, virtual=8, second=7), virtual)
        assert not torch.equal(virtual, own)
    batch = batch_with(virtual=8)
    stripped = batch_with(virtual=8)
    stripped.image_features = other_features(55, tokens=5)
    assert torch.equal(paired.encode(batch, "text"), paired.encode(stripped, "text"))


def test_what_results_say():
    paired = make_model("vtph", toy_problem(16))
    alone = make_model("vtph", toy_problem(16), db_text="text_only")
    with_pictures = paired.protocol_notes({"second": "a", "virtual": "b"})["text_codes"]
    assert with_pictures == {
        "database": "own picture and second caption",
        "query": "painted picture and its caption",
    }
    assert alone.protocol_notes({})["text_codes"] == {"database": "alone", "query": "alone"}


@pytest.mark.parametrize("bits", [1, 48])
def test_one_row_and_odd_lengths_train(bits):
    problem, batch = toy_problem(bits), take(toy_batch(), [3])
    model, loss = make_model("vtph", problem), make_loss("vtph", problem)
    terms = loss(model(batch), batch, Progress())
    terms.total().backward()
    assert set(terms) == {"intra", "inter", "quant", "contrast", "distill", "triplet"}
    for parameter in model.parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all())


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: VTPHConfig(prompt_heads=0), "model.prompt_heads=0 has to be at least 1"),
        (lambda: VTPHConfig(alone_share=2.0), "model.alone_share=2.0 is not accepted"),
        (lambda: VTPHConfig(adapter_dropout=1.0), "model.adapter_dropout=1.0 is not accepted"),
        (lambda: Prompts(32, VTPHConfig(prompt_heads=5)), "does not divide the width 32"),
        (lambda: VTPHLossConfig(temperature=0.0), "loss.temperature=0.0 has to be above 0"),
        (lambda: VTPHLossConfig(gamma=-1.0), "loss.gamma=-1.0 would make"),
    ],
)
def test_senseless_settings_are_refused(build, told):
    with pytest.raises(UserError, match=told):
        build()


def test_the_recipe():
    config = compose(["method=vtph", "backbone=clip_vit_b32", "backbone.weights=random"])
    assert config.backbone.config.freeze == "all"
    assert config.model.config == VTPHConfig()
    assert config.loss.config == VTPHLossConfig()
    assert config.optim["head"].lr == 2.5e-4
    assert config.optim["head"].optimizer.config.weight_decay == 0.01
    assert config.optim["head"].schedule.config.warmup == 0.05
    assert (config.runner.config.epochs, config.runner.config.batch_size) == (30, 128)
