"""OrthoHash: both margins against a loop, the centres, the normalised head."""

from __future__ import annotations

import math

import pytest
import torch

from models.base import Progress
from models.image.orthohash import OrthoHashConfig, OrthoHashLoss
from tests.models.classics import BITS, close, dot, entropies, example, mean, problem, terms_of
from tests.models.toys import make_model, take, toy_batch, toy_problem


def make_loss(**keys):
    return OrthoHashLoss(OrthoHashConfig(**keys), problem()).double()


@pytest.mark.parametrize(("form", "margin"), [("cosine", None), ("arc", None), ("arc", 0.6)])
def test_loop(form, margin):
    loss, (code, batch) = make_loss(form=form, margin=margin, lambda_quant=0.5), example()
    m = margin or {"cosine": 0.3, "arc": 0.2}[form]
    u = code.detach()
    logits = []
    for row, label in zip(u, batch.label.tolist(), strict=True):
        cosines = [dot(row, c) / math.sqrt(dot(row, row) * BITS) for c in loss.centers]
        if form == "arc":
            cosines = [
                math.cos(math.acos(c) + (m if y else 0))
                for c, y in zip(cosines, label, strict=True)
            ]
        else:
            cosines = [c - (m if y else 0) for c, y in zip(cosines, label, strict=True)]
        logits.append([8 * c for c in cosines])
    terms = terms_of(loss, code, batch)
    close(terms.cls, entropies(torch.tensor(logits, dtype=torch.float64), batch.label))
    signed = [dot(r, r.sign()) / math.sqrt(dot(r, r) * BITS) for r in u]
    close(terms.quant, 0.5 * (1 - mean(signed)))


@pytest.mark.parametrize("form", ["cosine", "arc"])
def test_codes_on_and_opposite_a_centre_have_a_gradient(form):
    loss, (_, batch) = make_loss(form=form).float(), example(rows=2)
    code = torch.stack([loss.centers[0], -loss.centers[0]]).requires_grad_()
    terms_of(loss, code, batch).total().backward()
    assert bool(code.grad.isfinite().all())


def test_quantisation_costs_nothing_unless_asked_for():
    code, batch = example()
    assert terms_of(make_loss(), code, batch).quant == 0


@pytest.mark.parametrize("kind", ["spread", "bernoulli", "balanced", "hadamard"])
def test_centers_follow_from_the_seed_and_are_kept(kind):
    first, second = make_loss(centers=kind), make_loss(centers=kind)
    assert torch.equal(first.centers, second.centers)
    assert set(first.centers.unique().tolist()) == {-1.0, 1.0}
    assert set(first.state_dict()) == {"centers"} and not list(first.parameters())


def test_the_head_normalises_each_bit_and_has_no_bias():
    model, batch = make_model("orthohash", toy_problem(16)), toy_batch()
    linear, norm = model.heads["image"]
    assert linear.bias is None
    code = model.train()(batch).image_code
    torch.testing.assert_close(code.mean(0), torch.zeros(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(code.var(0, unbiased=False), torch.ones(16), atol=1e-3, rtol=0)
    before = norm.running_mean.clone()
    alone = model(take(batch, [0])).image_code
    assert torch.equal(norm.running_mean, before)
    torch.testing.assert_close(alone, model.eval().encode(take(batch, [0]), "image"))


def test_the_loss_takes_codes_of_any_model():
    task, batch = toy_problem(48), toy_batch()
    loss = OrthoHashLoss(OrthoHashConfig(), task)
    for name in ("image_hash", "orthohash"):
        outputs = make_model(name, task)(batch)
        assert loss(outputs, batch, Progress()).total().isfinite()
