from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from common.config.run_config import compose
from models.base import Outputs, Problem, Progress
from models.cross_modal import dnph
from models.cross_modal.dnph import DNPHLoss, DNPHLossConfig, assign
from tests.golden.adapters._common import label_batch
from tests.models.toys import ROWS, make_model, take, toy_batch, toy_problem

ROWS_HERE, CLASSES, BITS = 6, 4, 5


def problem(seed: int = 0) -> Problem:
    return Problem(BITS, CLASSES, generator=torch.Generator().manual_seed(seed))


def make_loss(seed: int = 0, **keys) -> DNPHLoss:
    return DNPHLoss(DNPHLossConfig(**keys), problem(seed)).double()


@pytest.fixture
def values():
    """Outputs and labels; the last row has no label, the first has two."""
    generator = torch.Generator().manual_seed(1)
    shapes = {"code": BITS, "logits": CLASSES}
    outputs = Outputs(
        **{
            f"{m}_{kind}": torch.randn(ROWS_HERE, width, generator=generator, dtype=torch.float64)
            for m in ("image", "text")
            for kind, width in shapes.items()
        }
    )
    label = torch.zeros(ROWS_HERE, CLASSES)
    label[torch.arange(5), torch.tensor([3, 1, 0, 2, 1])] = 1
    label[0, 1] = 1
    return outputs, label


def lengths(code, noise, power=1):
    """Return the distances of all pairs, each from its own difference."""
    return np.array([[float((c - s).norm()) ** power for s in noise] for c in code])


def best_permutation(cost):
    orders = itertools.permutations(range(len(cost)))
    return min(orders, key=lambda order: sum(cost[i, j] for i, j in enumerate(order)))


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_the_assignment_is_the_best_of_all_permutations(rows):
    squares_differ = 0
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        codes = torch.randn(2, rows, 16, generator=generator)
        noise = torch.randn(rows, 16, generator=generator).sign()
        chosen = assign(codes, noise)
        assert chosen.shape == (2, rows)
        for code, order in zip(codes, chosen.tolist(), strict=True):
            wanted = best_permutation(lengths(code, noise))
            assert tuple(order) == wanted
            squares_differ += wanted != best_permutation(lengths(code, noise, power=2))
    assert squares_differ or rows < 5, "no case tells distances from squared distances"


def test_codes_that_meet_the_noise_exactly_are_assigned_to_it():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(8, 32, generator=generator).sign()
    order = torch.randperm(8, generator=generator)
    assert torch.equal(assign(noise[order][None], noise)[0], order)


def softmax_term(code, label, proxies, margin):
    """-Σ_c Y_ic log softmax_c(-D_ic), summed over rows: the equation, term by term."""
    total = 0.0
    for h, y in zip(code.tolist(), label.tolist(), strict=True):
        length = math.sqrt(sum(v * v for v in h))
        distances = []
        for c, p in enumerate(proxies.tolist()):
            width = math.sqrt(sum(v * v for v in p))
            gap = sum((a / length - b / width) ** 2 for a, b in zip(h, p, strict=True))
            distances.append(gap + margin * y[c])
        log_sum = math.log(sum(math.exp(-d) for d in distances))
        total += sum(y[c] * (distances[c] + log_sum) for c in range(len(y)))
    return total


@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_terms_follow_the_equations(values, margin):
    outputs, label = values
    loss = make_loss(margin=margin, noise_alpha=0.3)
    terms = loss(outputs, label_batch(label), Progress(step=4))
    noise = loss.draw_noise(ROWS_HERE, BITS, 4).double()
    for modality in ("image", "text"):
        code, logits = outputs[f"{modality}_code"], outputs[f"{modality}_logits"]
        proxy = softmax_term(code, label, loss.proxies, margin) / (2 * ROWS_HERE)
        assert terms[f"proxy_{modality}"].item() == pytest.approx(proxy)
        entropies = []
        for u, y in zip(logits.tolist(), label.tolist(), strict=True):
            if 1.0 in y:
                entropies.append(math.log(sum(map(math.exp, u))) - u[y.index(1.0)])
        assert len(entropies) == 5
        assert terms[f"cls_{modality}"].item() == pytest.approx(sum(entropies) / 5)
        order = best_permutation(lengths(code, noise))
        gain = sum(float(code[i] @ noise[j]) for i, j in enumerate(order)) / ROWS_HERE
        assert terms[f"noise_{modality}"].item() == pytest.approx(-0.3 * gain)
    assert set(terms) == {
        f"{name}_{m}" for name in ("proxy", "cls", "noise") for m in ("image", "text")
    }


def test_a_row_without_label_has_no_part_in_the_classifier(values):
    outputs, label = values
    logits = outputs.image_logits.requires_grad_()
    make_loss()(outputs, label_batch(label), Progress()).total().backward()
    assert logits.grad[-1].abs().sum() == 0 and bool((logits.grad[:-1] != 0).all())
    nothing = make_loss()(outputs, label_batch(0 * label), Progress())
    assert nothing.cls_image == 0 and nothing.proxy_image == 0


def test_the_assignment_takes_no_gradient(values):
    outputs, label = values
    code = outputs.image_code.requires_grad_()
    loss = make_loss()
    terms = loss(outputs, label_batch(label), Progress(step=2))
    (gradient,) = torch.autograd.grad(terms.noise_image, code)
    assigned = loss.assigned_noise(torch.stack([code, outputs.text_code]), 2)[0]
    torch.testing.assert_close(gradient, -0.1 * assigned / ROWS_HERE)


def test_noise_follows_from_seed_and_step_alone():
    loss = make_loss()
    first = loss.draw_noise(64, 32, step=0)
    assert set(first.unique().tolist()) == {-1.0, 1.0} and abs(first.mean()) < 0.1
    torch.manual_seed(99)
    assert torch.equal(first, make_loss().draw_noise(64, 32, step=0))
    assert not torch.equal(first, loss.draw_noise(64, 32, step=1))
    assert not torch.equal(first, make_loss(seed=1).draw_noise(64, 32, step=0))


def test_without_weight_nothing_is_assigned(values, monkeypatch):
    monkeypatch.setattr(dnph, "assign", None)
    outputs, label = values
    terms = make_loss(noise_alpha=0.0)(outputs, label_batch(label), Progress())
    assert not [name for name in terms if name.startswith("noise")]


def test_codes_that_are_not_finite_reach_the_terms(values):
    outputs, label = values
    outputs["image_code"][1, 1] = math.nan
    terms = make_loss()(outputs, label_batch(label), Progress())
    assert terms.noise_image.isnan() and terms.noise_text.isfinite()


def test_proxies_are_frozen_or_trained_in_a_group_of_their_own():
    frozen, trained = make_loss(), make_loss(proxies="trained")
    assert torch.equal(frozen.proxies, trained.proxies.detach())
    assert not list(frozen.parameters()) and frozen.param_groups() == {}
    assert set(frozen.state_dict()) == set(trained.state_dict()) == {"proxies", "noise_seed"}
    assert trained.param_groups() == {"proxies": [trained.proxies]}


def test_the_recipe_gives_trained_proxies_plain_sgd():
    config = compose(["method=dnph", "loss.proxies=trained", "optim.groups.proxies.lr=0.02"])
    group = config.optim["proxies"]
    assert (group.optimizer.name, group.lr, group.schedule.name) == ("sgd", 0.02, "constant")
    assert (group.optimizer.config.momentum, group.optimizer.config.weight_decay) == (0, 0)
    assert compose(["method=dnph"]).loss.config.proxies == "frozen"


def test_the_classifier_reads_the_features_and_has_no_dropout():
    model, batch = make_model("dnph", toy_problem(16)), toy_batch()
    one, two = model.train()(batch), model(batch)
    assert not torch.equal(one.image_code, two.image_code)
    assert torch.equal(one.image_logits, two.image_logits)
    outputs = model.eval()(take(batch, [0]))
    for modality in ("image", "text"):
        pooled = batch.features(modality).pooled
        layer = model.classifiers[modality]
        wanted = pooled[:1] @ layer.weight.T + layer.bias
        torch.testing.assert_close(outputs[f"{modality}_logits"], wanted)
        assert outputs[f"{modality}_code"].shape == (1, 16)
        codes = model.encode(batch, modality)
        assert codes.shape == (ROWS, 16) and bool((codes.abs() < 1).all())
