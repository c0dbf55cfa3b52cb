"""DSPH: the loss against loops over rows, classes and pairs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from models.base import Batch, Outputs, Progress
from models.cross_modal.dsph import DSPHLoss, DSPHLossConfig
from tests.models.toys import toy_problem

BITS, THETA = 6, 0.05
LABELS = [[1, 0, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1]]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))


@pytest.mark.parametrize("alpha", [0.8, 0.0])
def test_the_terms_are_those_of_loops(alpha):
    config = DSPHLossConfig(alpha=alpha, threshold=THETA)
    loss = DSPHLoss(config, toy_problem(BITS, multi=True))
    torch.manual_seed(0)
    codes = {m: torch.randn(len(LABELS), BITS) for m in ("image", "text")}
    batch = Batch(torch.tensor(LABELS).float(), torch.arange(len(LABELS)))
    outputs = Outputs(**{f"{m}_code": code for m, code in codes.items()})
    terms = {k: v.item() for k, v in loss(outputs, batch, Progress()).items()}
    proxies = loss.proxies.detach().numpy()
    expected = {}
    for modality, code in codes.items():
        pairs = list(itertools.product(zip(code.numpy(), LABELS, strict=True), range(4)))
        near = [1 - cosine(row, proxies[c]) for (row, labels), c in pairs if labels[c]]
        far = [cosine(row, proxies[c]) - THETA for (row, labels), c in pairs if not labels[c]]
        expected[f"pos_{modality}"] = np.mean(near)
        expected[f"neg_{modality}"] = np.mean(np.maximum(far, 0))
    several = [i for i, labels in enumerate(LABELS) if sum(labels) > 1]
    for a, b in (("image", "image"), ("text", "text"), ("image", "text")) if alpha else ():
        excess = [
            max(0.0, cosine(codes[a][i].numpy(), codes[b][j].numpy()) - THETA)
            for i, j in itertools.product(several, several)
            if not np.dot(LABELS[i], LABELS[j])
        ]
        assert excess
        expected[f"reg_{a[0]}{b[0]}"] = alpha * np.mean(excess)
    assert terms == pytest.approx(expected, rel=1e-4, abs=1e-7)
