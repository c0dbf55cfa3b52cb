"""Cosines with a margin: against a loop over rows and classes."""

from __future__ import annotations

import math

import pytest
import torch

from models.losses.margin_softmax import margin_cosine


@pytest.mark.parametrize("form", ["cosine", "arc"])
def test_it_is_that_of_a_loop(form):
    generator = torch.Generator().manual_seed(0)
    cosine = torch.rand(4, 3, generator=generator, dtype=torch.float64) * 2 - 1
    cosine[0, 0], cosine[1, 1] = 1.0, -1.0
    label = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0]]
    label[3, 2] = 1
    found = margin_cosine(cosine, label, form, 0.3, 0.99)
    for i in range(4):
        for c in range(3):
            value, y = float(cosine[i, c]), float(label[i, c])
            if form == "cosine":
                wanted = value - 0.3 * y
            else:
                wanted = math.cos(math.acos(min(max(value, -0.99), 0.99)) + 0.3 * y)
            assert float(found[i, c]) == pytest.approx(wanted)


def test_the_gradient_of_an_arc_is_finite_where_the_cosine_is_one():
    cosine = torch.ones(1, 1, requires_grad=True)
    margin_cosine(cosine, torch.ones(1, 1), "arc", 0.2, 1 - 1e-6).sum().backward()
    assert bool(cosine.grad.isfinite().all())
