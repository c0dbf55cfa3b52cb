"""DPSH against a loop over pairs, in its two weightings."""

from __future__ import annotations

import torch

from models.image.dpsh import DPSHConfig, DPSHLoss
from tests.models.classics import (
    TRAIN,
    close,
    dot,
    example,
    likelihood,
    mean,
    problem,
    shared,
    terms_of,
)


def loop(code, label, rows, row_label):
    """Return the likelihood of every pair, of similar and of dissimilar ones."""
    values = {True: [], False: []}
    for a, y in zip(code, label, strict=True):
        for b, z in zip(rows, row_label, strict=True):
            values[shared(y, z)].append(likelihood(dot(a, b) / 2, shared(y, z)))
    return values


def test_batch():
    code, batch = example()
    values = loop(code.detach(), batch.label, code.detach(), batch.label)
    terms = terms_of(DPSHLoss(DPSHConfig(), problem()), code, batch)
    assert set(terms) == {"pair", "quant"}
    close(terms.pair, mean(values[True] + values[False]))
    close(
        terms.quant, 0.1 * mean([(u - (1 if u >= 0 else -1)) ** 2 for u in code.flatten().tolist()])
    )


def test_balanced_batch():
    code, batch = example()
    values = loop(code.detach(), batch.label, code.detach(), batch.label)
    terms = terms_of(DPSHLoss(DPSHConfig(weights="balanced"), problem()), code, batch)
    assert set(terms) == {"similar", "dissimilar", "quant"}
    close(terms.similar, mean(values[True]))
    close(terms.dissimilar, mean(values[False]))


def test_memory_of_two_batches():
    loss = DPSHLoss(DPSHConfig(pairs="memory"), problem()).double()
    (first, seen), (code, batch) = example(seed=1), example(seed=2, rows=4)
    terms_of(loss, first, seen)
    terms = terms_of(loss, code, batch)
    rows, labels = torch.zeros(TRAIN, code.shape[1]), torch.zeros(TRAIN, seen.label.shape[1])
    for old, part in ((first, seen), (code, batch)):
        rows = rows.double().index_copy(0, part.index, old.detach())
        labels = labels.double().index_copy(0, part.index, part.label)
    values = loop(code.detach(), batch.label, rows, labels)
    assert len(values[True]) + len(values[False]) == 4 * TRAIN
    close(terms.pair, mean(values[True] + values[False]))
    # rows never visited have code 0: they add to the value but not to the gradient
    (gradient,) = torch.autograd.grad(terms.pair, code)
    theta = code.detach() @ rows.T / 2
    similar = (batch.label @ labels.T > 0).double()
    torch.testing.assert_close(gradient, (theta.sigmoid() - similar) @ rows / 2 / similar.numel())
