from __future__ import annotations

import math

import pytest
import torch

from common.batch import Features
from common.config.run_config import compose
from models.base import Outputs, Progress
from models.cross_modal.mith import MITHLoss, MITHLossConfig
from models.losses.concept_loss import match_entropy
from tests.models.toys import ROWS, make_loss, make_model, take, toy_batch, toy_problem
from utils.errors import UserError

BITS, WIDTH = 5, 6
PARTS = ("pooled_code", "token_code", "pooled", "concepts")


def draws(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def make_outputs(rows):
    outputs = Outputs()
    for seed, m in enumerate(("image", "text")):
        outputs[f"{m}_pooled_code"] = draws(rows, BITS, seed=seed).tanh()
        outputs[f"{m}_token_code"] = draws(rows, BITS, seed=seed + 2).tanh()
        for part, shape in (("pooled", (rows, WIDTH)), ("concepts", (rows, BITS, WIDTH))):
            vectors = draws(*shape, seed=seed + 4)
            outputs[f"{m}_{part}"] = vectors / vectors.norm(dim=-1, keepdim=True)
    return Outputs({name: value.requires_grad_() for name, value in outputs.items()})


@pytest.fixture
def loss():
    return MITHLoss(MITHLossConfig(), toy_problem(BITS, multi=True)).double()


def entropy(similarities):
    """Return -log softmax of the matching entry, averaged over rows."""
    total = 0.0
    for n, row in enumerate(similarities):
        total += math.log(sum(math.exp(x) for x in row)) - row[n]
    return total / len(similarities)


def both_ways(matrix):
    columns = [list(column) for column in zip(*matrix, strict=True)]
    return (entropy(matrix) + entropy(columns)) / 2


def inner(first, second):
    return [[float(a @ b) / 0.07 for b in second] for a in first]


def by_loops(loss, outputs, batch):
    """Return the terms with their weights, written from the equations one number at a time."""
    memory = {name: m.rows.clone() for name, m in loss.memories.items()}
    for name, rows in memory.items():
        rows[batch.index] = outputs[name]
    h = {m: outputs[f"{m}_pooled_code"] for m in ("image", "text")}
    u = {m: outputs[f"{m}_token_code"] for m in ("image", "text")}
    rows, bits = h["image"].shape

    def bay(name, code):
        total = 0.0
        for n in range(len(loss.label)):
            for b in range(rows):
                theta = 0.5 * float((memory[name][n] @ code[b]).clamp(-64, 64))
                similar = float((loss.label[n] * batch.label[b]).sum() > 0)
                total += math.log1p(math.exp(theta)) - similar * theta
        return total / (len(loss.label) * rows)

    target = torch.zeros(rows, bits)
    for b in range(rows):
        for k in range(bits):
            value = sum(0.99 * h[m][b, k] + 0.01 * u[m][b, k] for m in h)
            target[b, k] = 1.0 if value >= 0 else -1.0
    concepts = sum(
        both_ways(inner(outputs.image_concepts[b], outputs.text_concepts[b])) for b in range(rows)
    )
    pooled = both_ways(inner(outputs.image_pooled, outputs.text_pooled))
    distances = [float((h[m] - u[m]).pow(2).sum()) / rows for m in h]
    return {
        "intra": bay("image_token_code", u["image"]) + bay("text_token_code", u["text"]),
        "inter": 10
        * (bay("image_pooled_code", h["text"]) + bay("text_pooled_code", h["image"])),
        "quant": 8 * sum(float(((h[m] + u[m]) / 2 - target).pow(2).mean()) for m in h),
        "contrast": 50 * (pooled + 0.01 * concepts / rows),
        "distill": 1.1 * sum(distances),
    }  # fmt: skip


@pytest.mark.parametrize("rows", [1, 5])
def test_terms_are_those_of_the_equations(loss, rows):
    batch, outputs = take(toy_batch(multi=True), slice(3, 3 + rows)), make_outputs(rows)
    with torch.no_grad():
        expected = by_loops(loss, outputs, batch)
        terms = loss(outputs, batch, Progress())
    assert set(terms) == set(expected)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-7), name


def test_memories_are_written_before_the_loss_and_in_training_alone(loss):
    batch, outputs = take(toy_batch(multi=True), [4, 9]), make_outputs(2)
    before = {name: m.rows.clone() for name, m in loss.memories.items()}
    assert len(before) == 4
    loss.eval()(outputs, batch, Progress())
    for name, memory in loss.memories.items():
        assert torch.equal(memory.rows, before[name])
    loss.train()(outputs, batch, Progress())
    for name, memory in loss.memories.items():
        assert torch.equal(memory.rows[[4, 9]], outputs[name].detach())
        others = [row for row in range(ROWS) if row not in (4, 9)]
        assert torch.equal(memory.rows[others], before[name][others])


def test_the_memories_alone_are_in_the_checkpoint(loss):
    assert set(loss.state_dict()) == {f"memories.{name}.rows" for name in loss.memories}


def test_each_code_learns_from_the_other_at_its_own_rate(loss):
    outputs = make_outputs(3)
    loss.distillation(outputs).backward()
    for m in ("image", "text"):
        towards = 2 * (outputs[f"{m}_token_code"] - outputs[f"{m}_pooled_code"]).detach() / 3
        torch.testing.assert_close(outputs[f"{m}_token_code"].grad, towards)
        torch.testing.assert_close(outputs[f"{m}_pooled_code"].grad, -0.1 * towards)


def test_likelihoods_cross_modalities_for_pooled_codes_only(loss):
    batch, outputs = take(toy_batch(multi=True), slice(0, 4)), make_outputs(4)
    terms = loss(outputs, batch, Progress())
    found = {
        term: torch.autograd.grad(terms[term], list(outputs.values()), allow_unused=True)
        for term in ("intra", "inter")
    }
    for term, part in (("intra", "token_code"), ("inter", "pooled_code")):
        reached = {n for n, g in zip(outputs, found[term], strict=True) if g is not None}
        assert reached == {f"image_{part}", f"text_{part}"}


def test_match_entropy_of_a_batch_of_matrices_is_the_mean():
    logits = 30 * draws(4, 3, 3, seed=0)
    expected = sum(both_ways(matrix.tolist()) for matrix in logits) / 4
    assert match_entropy(logits).item() == pytest.approx(expected)
    assert match_entropy(logits[:1, :1, :1]).item() == 0


def test_the_code_is_half_the_sum_of_both():
    model, batch = make_model("mith", toy_problem(16)), toy_batch()
    outputs = model(batch)
    for m in ("image", "text"):
        half = (outputs[f"{m}_pooled_code"] + outputs[f"{m}_token_code"]) / 2
        assert torch.equal(outputs[f"{m}_code"], half)
        assert torch.equal(model.encode(batch, m), half)
        for part in ("pooled", "concepts"):
            lengths = outputs[f"{m}_{part}"].norm(dim=-1)
            torch.testing.assert_close(lengths, torch.ones_like(lengths))


@pytest.mark.parametrize("bits", [1, 4, 48])
def test_rows_without_a_visible_word_and_few_bits_train(bits):
    problem, batch = toy_problem(bits), take(toy_batch(), slice(0, 3))
    text = batch.text_features
    assert text is not None and text.mask is not None
    hidden = text.mask.clone()
    hidden[1] = True
    batch.text_features = Features(text.pooled, text.tokens, hidden)
    model, loss = make_model("mith", problem), make_loss("mith", problem)
    terms = loss(model(batch), batch, Progress())
    terms.total().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all())


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(UserError, match="loss.temperature=0.0 has to be above 0"):
        MITHLossConfig(temperature=0.0)


def test_the_recipe():
    config = compose(["method=mith"])
    assert config.model.config.top_k == 8
    assert config.loss.config == MITHLossConfig()
    groups = config.optim
    assert (groups["head"].lr, groups["backbone"].lr) == (1e-3, 2e-6)
    assert groups["head"].schedule.config.warmup == 0.05
    assert groups["head"].optimizer.config.weight_decay == 0.01
    assert (config.runner.config.epochs, config.runner.config.batch_size) == (30, 128)
