"""Soft mixture of experts, against the sums of its formula."""

import numpy as np
import torch

from models.layers.soft_moe import SoftMoE


def softmax(values: np.ndarray, axis) -> np.ndarray:
    powers = np.exp(values - values.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def test_slots_and_results_are_weighted_means():
    torch.manual_seed(0)
    rows, length, width, out, experts, slots = 3, 5, 4, 6, 2, 3
    layer = SoftMoE(width, out, experts, slots)
    tokens = torch.randn(rows, length, width)
    phi, weight, bias = (p.detach().double().numpy() for p in layer.parameters())
    for row, found in zip(tokens.double().numpy(), layer(tokens).detach().numpy(), strict=True):
        logits = np.einsum("mf,fnp->mnp", row, phi)
        dispatch, combine = softmax(logits, 0), softmax(logits.reshape(length, -1), 1)
        results = np.zeros((experts, slots, out))
        for n in range(experts):
            for p in range(slots):
                slot = sum(dispatch[m, n, p] * row[m] for m in range(length))
                results[n, p] = slot @ weight[n] + bias[n]
        expected = combine @ results.reshape(experts * slots, out)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
