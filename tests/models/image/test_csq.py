"""CSQ: the loss against loops over rows and bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models.base import Batch, Outputs, Progress
from models.image.csq import CSQConfig, CSQLoss
from tests.models.toys import toy_problem

BITS = 8
LABELS = [[1, 0, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 1, 0], [1, 1, 1, 0]]


@pytest.mark.parametrize("several", ["vote", "first"])
def test_the_terms_are_those_of_loops(several):
    loss = CSQLoss(CSQConfig(lambda_quant=0.25, several=several), toy_problem(BITS, multi=True))
    torch.manual_seed(0)
    code = 2 * torch.randn(len(LABELS), BITS)
    batch = Batch(torch.tensor(LABELS).float(), torch.arange(len(LABELS)))
    terms = loss(Outputs(image_code=code), batch, Progress())
    centers, tie_break = loss.centers.numpy(), loss.tie_break.numpy()
    assert (centers @ centers.T == BITS * np.eye(4)).all()  # rows of a Hadamard matrix
    entropy, away, ties = [], [], 0
    for row, labels in zip(code.double().numpy(), LABELS, strict=True):
        chosen = [c for c, has in enumerate(labels) if has]
        chosen = chosen[:1] if several == "first" else chosen
        for k in range(BITS):
            votes = sum(centers[c, k] for c in chosen)
            ties += votes == 0
            target = tie_break[k] if votes == 0 else math.copysign(1, votes)
            p = (math.tanh(row[k]) + 1) / 2  # that the bit is +1
            entropy.append(-math.log(p if target > 0 else 1 - p))
            away.append((abs(math.tanh(row[k])) - 1) ** 2)
    assert (ties > 0) == (several == "vote")
    assert terms.center.item() == pytest.approx(np.mean(entropy), rel=1e-4)
    assert terms.quant.item() == pytest.approx(0.25 * np.mean(away), rel=1e-4)
