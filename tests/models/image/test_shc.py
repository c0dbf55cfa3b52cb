"""SHC's loss and classifier against loops written from the equations."""

import math

import pytest
import torch

from models.base import Outputs, Progress
from models.centers.hash_centers import random_signs
from models.image.csq import CSQConfig, CSQLoss
from models.image.image_hash import StandardizeConfig
from models.image.shc import Classifier, ClassifierLoss, SHCConfig, SHCLoss
from tests.models.toys import CLASSES, ROWS, WIDTH, make_model, take, toy_batch, toy_problem

BITS = 12


def loss_of(**keys):
    loss = SHCLoss(SHCConfig(**keys), toy_problem(BITS, True))
    loss.set_centers(random_signs(CLASSES, BITS, torch.Generator().manual_seed(2)))
    return loss


def outputs_of(rows=ROWS):
    return 2 * torch.randn(rows, BITS, generator=torch.Generator().manual_seed(1))


def target_by_loop(loss, label, several):
    """Return what every bit of a row is drawn to."""
    chosen = [c for c, y in enumerate(label.tolist()) if y > 0]
    if several == "first":
        chosen = chosen[:1]
    target = []
    for k in range(BITS):
        votes = sum(float(loss.centers[c, k]) for c in chosen)
        target.append(float(loss.tie_break[k]) if votes == 0 else math.copysign(1, votes))
    return target


@pytest.mark.parametrize("several", ["vote", "first"])
@pytest.mark.parametrize("quantizer", ["tanh", "output"])
def test_terms_against_a_loop(several, quantizer):
    loss = loss_of(several=several, quantizer=quantizer, lambda_quant=0.3)
    batch, output = toy_batch(True), outputs_of()
    batch.label[3] = 0
    batch.label[5] = 1
    center = quant = 0.0
    for u, y in zip(output, batch.label, strict=True):
        for value, c in zip(u.tolist(), target_by_loop(loss, y, several), strict=True):
            t = math.tanh(value)
            drawn = math.log((1 + t * c) / 2)  # probability of the bit that the centre has
            center -= max(drawn, -100) / (ROWS * BITS)
            own = t if quantizer == "tanh" else value
            quant += (abs(own) - 1) ** 2 / (ROWS * BITS)
    terms = loss(Outputs(image_code=output), batch, Progress())
    assert terms.center.item() == pytest.approx(center, rel=1e-4)
    assert terms.quant.item() == pytest.approx(0.3 * quant, rel=1e-5)


def test_without_its_runner_it_is_csq():
    batch, output = toy_batch(True), outputs_of()
    shc = SHCLoss(SHCConfig(), toy_problem(BITS, True))
    csq = CSQLoss(CSQConfig(), toy_problem(BITS, True))
    ours, theirs = (m(Outputs(image_code=output), batch, Progress()) for m in (shc, csq))
    assert ours.keys() == theirs.keys() and torch.equal(ours.total(), theirs.total())


def test_csq_takes_the_first_label_alone():
    batch, loss = toy_batch(True), CSQLoss(CSQConfig(several="first"), toy_problem(BITS, True))
    first = loss.centers[batch.label.argmax(1)]
    assert torch.equal(loss.targets(batch.label), first)
    vote = CSQLoss(CSQConfig(), toy_problem(BITS, True)).targets(batch.label)
    assert not torch.equal(vote, first)


def test_csq_takes_other_centers():
    chosen = CSQLoss(CSQConfig(centers="mds"), toy_problem(BITS)).centers
    assert not torch.equal(chosen, CSQLoss(CSQConfig(), toy_problem(BITS)).centers)


def test_centers_must_have_the_right_shape():
    with pytest.raises(RuntimeError):
        loss_of().set_centers(torch.ones(CLASSES + 1, BITS))


def classifier(classes=CLASSES, **keys):
    problem = toy_problem(BITS, True, classes=classes)
    backbone = make_model("shc", problem).backbone
    return Classifier(StandardizeConfig(**keys), problem, backbone)


@pytest.mark.parametrize("on", ["probabilities", "logits"])
def test_the_classifier_against_a_loop(on):
    model, batch = classifier(), toy_batch(True)
    with torch.no_grad():
        model.heads["image"].weight.mul_(100)
    logits = model(batch).image_code
    assert logits.shape == (ROWS, CLASSES)
    total = 0.0
    for z, y in zip(logits.tolist(), batch.label.tolist(), strict=True):
        if on == "probabilities":
            whole = sum(math.exp(v) for v in z)
            z = [math.exp(v) / whole for v in z]
        whole = sum(math.exp(v) for v in z)
        total -= sum(y[c] * (z[c] - math.log(whole)) for c in range(CLASSES)) / ROWS
    terms = ClassifierLoss(on)(Outputs(image_code=logits), batch, Progress())
    assert list(terms) == ["cls"] and terms.cls.item() == pytest.approx(total, rel=1e-5)


def test_new_layers_start_small():
    for model, width in ((classifier(1000), 1000), (make_model("shc", toy_problem(64)), 64)):
        layer = model.heads["image"]
        assert layer.weight.shape == (width, WIDTH) and not layer.bias.any()
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_one_class_and_one_row():
    model, batch = classifier(1), take(toy_batch(classes=1), [0])
    outputs = model(batch)
    for on in ("probabilities", "logits"):
        assert ClassifierLoss(on)(outputs, batch, Progress()).cls.item() == 0
