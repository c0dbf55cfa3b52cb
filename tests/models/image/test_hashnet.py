"""HashNet against a loop over pairs."""

from __future__ import annotations

import math

import pytest

from models.image.hashnet import HashNetConfig, HashNetLoss
from tests.models.classics import close, dot, example, likelihood, mean, problem, shared, terms_of


@pytest.mark.parametrize(("epoch", "beta"), [(0, 1.0), (19, 1.0), (20, math.sqrt(2)), (65, 2.0)])
def test_loop(epoch, beta):
    code, batch = example()
    terms = terms_of(HashNetLoss(HashNetConfig(alpha=0.7), problem()), code, batch, epoch)
    squashed = (beta * code.detach()).tanh()
    values = {True: [], False: []}
    for a, y in zip(squashed, batch.label, strict=True):
        for b, z in zip(squashed, batch.label, strict=True):
            values[shared(y, z)].append(likelihood(0.7 * dot(a, b), shared(y, z)))
    close(terms.similar, mean(values[True]))
    close(terms.dissimilar, mean(values[False]))
