"""Cross entropy of rows with several labels or none; cosines with a margin."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from models.losses.multilabel import first_label, margin_cosine, multilabel_cross_entropy
from tests.models.classics import close, entropies


def test_loop():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    label = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1]])
    close(multilabel_cross_entropy(logits, label), entropies(logits, label))


def test_one_label_is_the_usual_cross_entropy():
    logits = torch.randn(6, 4, dtype=torch.float64)
    target = torch.arange(6) % 4
    expected = F.cross_entropy(logits, target)
    torch.testing.assert_close(multilabel_cross_entropy(logits, F.one_hot(target, 4)), expected)


def test_no_label_at_all_is_zero_with_gradient_zero():
    logits = torch.randn(2, 3, requires_grad=True)
    value = multilabel_cross_entropy(logits, torch.zeros(2, 3))
    value.backward()
    assert value == 0 and not logits.grad.any()


def test_first_label():
    label = torch.tensor([[0.0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]])
    expected = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert first_label(label).tolist() == expected


@pytest.mark.parametrize("form", ["cosine", "arc"])
def test_a_margin_is_that_of_a_loop(form):
    generator = torch.Generator().manual_seed(0)
    cosine = torch.rand(4, 3, generator=generator, dtype=torch.float64) * 2 - 1
    cosine[0, 0], cosine[1, 1] = 1.0, -1.0
    label = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0]]
    label[3, 2] = 1
    ours = margin_cosine(cosine, label, form, 0.3, 0.99)
    for i in range(4):
        for c in range(3):
            value, y = float(cosine[i, c]), float(label[i, c])
            if form == "cosine":
                expected = value - 0.3 * y
            else:
                expected = math.cos(math.acos(min(max(value, -0.99), 0.99)) + 0.3 * y)
            assert float(ours[i, c]) == pytest.approx(expected)


def test_the_gradient_of_an_arc_is_finite_where_the_cosine_is_one():
    cosine = torch.ones(1, 1, requires_grad=True)
    margin_cosine(cosine, torch.ones(1, 1), "arc", 0.2, 1 - 1e-6).sum().backward()
    assert bool(cosine.grad.isfinite().all())
