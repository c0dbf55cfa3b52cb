"""GreedyHash: the classifier on signs and its straight-through gradient."""

from __future__ import annotations

import pytest
import torch

from models.image.greedyhash import GreedyHashConfig, GreedyHashLoss, straight_through_sign
from tests.models.classics import (
    BITS,
    CLASSES,
    close,
    entropies,
    example,
    mean,
    problem,
    terms_of,
)


def make_loss(**keys):
    torch.manual_seed(0)
    return GreedyHashLoss(GreedyHashConfig(**keys), problem()).double()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("labels", ["all", "first"])
def test_loop(labels, bias):
    loss, (code, batch) = make_loss(labels=labels, bias=bias, power=2.5), example()
    terms = terms_of(loss, code, batch)
    signs = torch.where(code.detach() < 0, -1.0, 1.0).double()
    weight = loss.classifier.weight.detach()
    logits = signs @ weight.T + (loss.classifier.bias.detach() if bias else 0.0)
    label = batch.label.clone()
    if labels == "first":
        label[0, 3] = 0
    close(terms.cls, entropies(logits, label))
    close(terms.quant, 0.1 * mean([abs(abs(v) - 1) ** 2.5 for v in code.flatten().tolist()]))


def test_the_gradient_is_that_of_the_code():
    loss, (code, batch) = make_loss(), example()
    signs = torch.where(code.detach() < 0, -1.0, 1.0).double().requires_grad_()
    (ours,) = torch.autograd.grad(terms_of(loss, code, batch).cls, code)
    (at_signs,) = torch.autograd.grad(terms_of(loss, signs, batch).cls, signs)
    torch.testing.assert_close(ours, at_signs)
    assert not ours[-1].any() and ours[:-1].any(1).all()  # the last row has no label


def test_signs_are_exact_and_nan_stays():
    code = torch.tensor([0.1, -0.3, 0.0, -1e-30, 7e8, 1 / 3], requires_grad=True)
    assert straight_through_sign(code).tolist() == [1, -1, 1, -1, 1, 1]
    assert straight_through_sign(torch.tensor([torch.nan])).isnan()


def test_the_classifier_is_a_group_of_its_own():
    loss = make_loss()
    assert loss.param_groups() == {"classifier": [loss.classifier.weight]}
    assert loss.classifier.weight.shape == (CLASSES, BITS)
