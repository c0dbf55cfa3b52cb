"""DHN against a loop over pairs and bits."""

from __future__ import annotations

import math

import pytest

from models.image.dhn import DHNConfig, DHNLoss
from tests.models.classics import (
    BITS,
    close,
    dot,
    example,
    likelihood,
    mean,
    problem,
    shared,
    terms_of,
)


@pytest.mark.parametrize(
    ("alpha", "kind"), [(1.0, "tanh"), (0.3, "tanh"), (None, "tanh"), (0.5, "output")]
)
def test_loop(alpha, kind):
    code, batch = example()
    config = DHNConfig(alpha=alpha, lambda_quant=0.4, code=kind)
    terms = terms_of(DHNLoss(config, problem()), code, batch)
    alpha = 10 / BITS if alpha is None else alpha
    z, label = code.detach(), batch.label
    z = z.tanh() if kind == "tanh" else z
    pairs = [
        likelihood(alpha * dot(a, b), shared(y, w))
        for a, y in zip(z, label, strict=True)
        for b, w in zip(z, label, strict=True)
    ]
    close(terms.pair, mean(pairs))
    close(terms.quant, 0.4 * mean([math.log(math.cosh(abs(v) - 1)) for v in z.flatten().tolist()]))
