"""DSH against a loop over pairs; the squared distance."""

from __future__ import annotations

import pytest
import torch

from models.image.dsh import DSHConfig, DSHLoss, squared_distance
from tests.models.classics import BITS, close, example, mean, problem, shared, terms_of


@pytest.mark.parametrize("margin", [None, 3.0])
def test_loop(margin):
    code, batch = example()
    loss = DSHLoss(DSHConfig(margin=margin, lambda_quant=0.3), problem())
    assert loss.margin == (2 * BITS if margin is None else margin)
    terms = terms_of(loss, code, batch)
    u, pairs = code.detach(), []
    for a, y in zip(u, batch.label, strict=True):
        for b, z in zip(u, batch.label, strict=True):
            distance = sum((p - q) ** 2 for p, q in zip(a.tolist(), b.tolist(), strict=True))
            apart = max(loss.margin - distance, 0)
            pairs.append(0.5 * (distance if shared(y, z) else apart))
    close(terms.pair, mean(pairs))
    close(terms.quant, 0.3 * mean([abs(1 - abs(v)) for v in u.flatten().tolist()]))


def test_the_gradient_pulls_similar_rows_together_and_leaves_distant_others():
    code = torch.tensor([[1.0, 0.0], [3.0, 0.0], [99.0, 0.0]], requires_grad=True)
    _, batch = example(rows=3)
    batch.label[:] = torch.tensor([[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]])
    pair = terms_of(DSHLoss(DSHConfig(), problem(bits=2)), code, batch).pair
    (gradient,) = torch.autograd.grad(pair, code)
    torch.testing.assert_close(gradient, torch.tensor([[-4.0, 0.0], [4.0, 0.0], [0.0, 0.0]]) / 9)


def test_squared_distances():
    a, b = torch.randn(4, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(squared_distance(a, b), torch.cdist(a, b) ** 2)
    assert squared_distance(a[:1], b[:1]).shape == (1, 1)
