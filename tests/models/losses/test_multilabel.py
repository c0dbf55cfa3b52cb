"""Cross-entropy of rows with several labels or none."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from models.losses.multilabel import first_label, label_entropy
from tests.models.classics import close, entropies


def test_loop():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    label = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1]])
    close(label_entropy(logits, label), entropies(logits, label))


def test_one_label_is_the_usual_cross_entropy():
    logits = torch.randn(6, 4, dtype=torch.float64)
    target = torch.arange(6) % 4
    expected = F.cross_entropy(logits, target)
    torch.testing.assert_close(label_entropy(logits, F.one_hot(target, 4)), expected)


def test_no_label_at_all_is_zero_with_gradient_zero():
    logits = torch.randn(2, 3, requires_grad=True)
    value = label_entropy(logits, torch.zeros(2, 3))
    value.backward()
    assert value == 0 and not logits.grad.any()


def test_first_label():
    label = torch.tensor([[0.0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]])
    expected = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert first_label(label).tolist() == expected
