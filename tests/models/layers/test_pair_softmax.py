"""Codes by arg max over pairs, against NumPy's."""

import numpy as np
import torch

from models.layers.pair_softmax import pair_softmax, pairs_to_code


def test_each_pair_is_a_softmax_of_its_own():
    torch.manual_seed(0)
    logits = 5 * torch.randn(6, 8)
    pairs = np.exp(logits.double().numpy()).reshape(6, 4, 2)
    expected = (pairs / pairs.sum(2, keepdims=True)).reshape(6, 8)
    np.testing.assert_allclose(pair_softmax(logits).numpy(), expected, rtol=1e-4, atol=1e-7)


def test_the_sign_is_that_of_the_arg_max_and_ties_are_the_first():
    torch.manual_seed(1)
    pairs = pair_softmax(torch.randn(50, 12).relu())  # many pairs of two zeros
    chosen = pairs.numpy().reshape(50, 6, 2).argmax(2)
    code = pairs_to_code(pairs)
    np.testing.assert_array_equal(np.where(code.numpy() < 0, 0, 1), chosen)
    ties = pairs[:, 0::2] == pairs[:, 1::2]
    assert ties.any() and bool((code[ties] < 0).all())
    torch.testing.assert_close(code, pairs[:, 1::2] - pairs[:, 0::2])
