"""Class similarity against a loop over rows and classes."""

import math

import pytest
import torch

from models.centers.class_similarity import class_similarity


def toy(rows=30, classes=5, multi=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, classes, generator=generator)
    label = torch.eye(classes)[torch.arange(rows) % classes]
    if multi:
        label[::3, classes - 1] = 1
    return logits, label


def by_loop(logits, label, own, weighting):
    count = logits.shape[1]
    sums, rows_of = [[0.0] * count for _ in range(count)], [0] * count
    for z, y in zip(logits.tolist(), label.tolist(), strict=True):
        if not any(y):
            continue
        chosen = y.index(1.0) if own == "label" else z.index(max(z))
        powers = [0.0 if c == chosen else math.exp(v) for c, v in enumerate(z)]
        rows_of[chosen] += 1
        for c in range(count):
            sums[chosen][c] += powers[c] / sum(powers)
    if weighting == "mean":
        sums = [[v / max(rows_of[a], 1) for v in row] for a, row in enumerate(sums)]
    result = torch.eye(count, dtype=torch.float64)
    for a in range(count):
        row = [(sums[a][b] + sums[b][a]) / 2 for b in range(count)]
        mean = sum(row) / count
        reach = max(abs(max(row) - mean), abs(min(row) - mean))
        for b in range(count):
            if a != b:
                result[a, b] = (row[b] - mean) / reach if reach else 0.0
    return result


@pytest.mark.parametrize("own", ["label", "predicted"])
@pytest.mark.parametrize("weighting", ["sum", "mean"])
@pytest.mark.parametrize("multi", [False, True])
def test_against_a_loop(own, weighting, multi):
    logits, label = toy(multi=multi)
    label[4] = 0  # a row without label says nothing
    ours = class_similarity(logits, label, own, weighting)
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, by_loop(logits, label, own, weighting))
    assert float(ours.abs().max()) <= 1


def test_frequent_classes_weigh_more_unless_rows_are_averaged():
    logits, label = toy()
    often = [torch.cat([rows, rows[::5], rows[::5]]) for rows in (logits, label)]
    assert not torch.allclose(class_similarity(*often), class_similarity(logits, label))
    torch.testing.assert_close(
        class_similarity(*often, weighting="mean"),
        class_similarity(logits, label, weighting="mean"),
    )


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_few_classes(classes):
    similarity = class_similarity(*toy(classes=classes))
    assert similarity.shape == (classes, classes) and bool(similarity.isfinite().all())


def test_no_rows_and_classes_without_rows():
    nothing = class_similarity(torch.zeros(0, 3), torch.zeros(0, 3))
    assert torch.equal(nothing, torch.eye(3, dtype=torch.float64))
    logits, label = toy()
    kept = label[:, 2:].sum(1) == 0
    similarity = class_similarity(logits[kept], label[kept])
    assert bool(similarity.isfinite().all())
    assert float(similarity[3, 4]) == float(similarity[3].min())  # nobody was taken for the other


def test_large_logits_do_not_overflow():
    logits, label = toy()
    assert bool(class_similarity(1e4 * logits, label).isfinite().all())
