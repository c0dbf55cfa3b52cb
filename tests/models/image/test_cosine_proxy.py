"""Cosine proxies: the loss against loops over rows and classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models.base import Batch, Outputs, Progress
from models.image.cosine_proxy import CosineProxyConfig, CosineProxyLoss
from tests.models.toys import make_loss, toy_problem

BITS, CLASSES = 6, 4
LABELS = [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))


@pytest.mark.parametrize("margin", [0.1, 0.0, 0.4])
@pytest.mark.parametrize("modalities", [("image",), ("image", "text")])
def test_the_terms_are_those_of_loops(modalities, margin):
    loss = CosineProxyLoss(CosineProxyConfig(margin=margin), toy_problem(BITS))
    torch.manual_seed(1)
    codes = {m: 3 * torch.randn(len(LABELS), BITS) for m in modalities}
    batch = Batch(torch.tensor(LABELS).float(), torch.arange(len(LABELS)))
    outputs = Outputs(**{f"{m}_code": code for m, code in codes.items()})
    terms = loss(outputs, batch, Progress())
    assert set(terms) == {f"{kind}_{m}" for m in modalities for kind in ("pos", "neg")}
    proxies = loss.proxies.detach().numpy()
    assert np.ptp(np.linalg.norm(proxies, axis=1)) > 0.1  # of lengths that must not matter
    for modality, code in codes.items():
        near, far = [], []
        for row, labels in zip(code.numpy(), LABELS, strict=True):
            for c, has in enumerate(labels):
                value = cosine(row, proxies[c])
                near += [1 - value] if has else []
                far += [] if has else [max(0.0, value - margin)]
        assert any(far)
        assert terms[f"pos_{modality}"].item() == pytest.approx(np.mean(near), rel=1e-5)
        assert terms[f"neg_{modality}"].item() == pytest.approx(np.mean(far), rel=1e-5)


def test_proxies_come_from_the_run_and_are_a_group_of_their_own():
    one, two, other = (make_loss("cosine_proxy", toy_problem(16, seed=s)) for s in (0, 0, 1))
    assert torch.equal(one.proxies, two.proxies) and not torch.equal(one.proxies, other.proxies)
    assert one.param_groups() == {"proxies": [one.proxies]}
