"""The weighted triplet loss against three nested loops, and against its cube."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common.pairwise import share_label
from models.losses.ranked_triplet import conflict_sum, dcg_weight, ranked_triplet

MARGIN = 0.3


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        made = function(*arguments, **(keywords or {}))
        tensors = (value for value in tree_leaves(made) if isinstance(value, torch.Tensor))
        self.numel = max([self.numel, *(tensor.numel() for tensor in tensors)])
        return made


def labels(rows, classes=6, share=0.25, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(rows, classes, generator=generator) < share).to(dtype)


def distances(rows, spread=1.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + spread * torch.randn(rows, rows, generator=generator, dtype=dtype)


def looped_weight(label):
    shared = (label @ label.T).tolist()
    weight = []
    for row in shared:
        ranked = sorted(row, reverse=True)
        ideal = sum((2**o - 1) / math.log2(r + 2) for r, o in enumerate(ranked))
        weight.append([(2**o - 1) / ideal if ideal else 0.0 for o in row])
    return torch.tensor(weight, dtype=torch.float64)


def cube(distance, similar, weight, margin):
    """All triples [B,B,B] (anchor, positive, negative): the sum of t and how many are counted."""
    mask = similar[:, :, None] * (1 - similar)[:, None]
    triples = (weight[:, :, None] - weight[:, None]) * mask
    triples = (triples * (distance[:, :, None] - distance[:, None] + margin)).clamp_min(0)
    return triples.sum(), (triples > 1e-16).sum()


def looped(distance, similar, weight, margin):
    rows = range(len(distance))
    total, count = 0.0, 0
    for a in rows:
        for p in rows:
            for n in rows:
                t = (weight[a, p] - weight[a, n]) * similar[a, p] * (1 - similar[a, n])
                t = max(float(t * (distance[a, p] - distance[a, n] + margin)), 0)
                total, count = total + t, count + (t > 1e-16)
    return total / max(count, 1)


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_weights_are_gains_over_the_ideal(rows):
    label = labels(rows)
    label[0] = 0  # shares nothing, not even with itself
    torch.testing.assert_close(dcg_weight(label), looped_weight(label))
    assert bool((dcg_weight(label)[0] == 0).all())


def test_weights_take_any_dtype_and_many_labels():
    label = labels(7)
    expected = dcg_weight(label).float()
    for dtype in (torch.int8, torch.int64, torch.bool, torch.float32, torch.float16):
        torch.testing.assert_close(dcg_weight(label.to(dtype)), expected)
    many = torch.ones(3, 300)  # 2^300 is beyond float32
    torch.testing.assert_close(dcg_weight(many), looped_weight(many.double()).float())


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_the_value_is_that_of_three_loops(rows):
    label, distance = labels(rows), distances(rows)
    similar, weight = share_label(label, label), dcg_weight(label)
    ours = float(ranked_triplet(distance, similar, weight, MARGIN))
    assert ours == pytest.approx(looped(distance, similar, weight, MARGIN), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("spread", [1.0, 0.05, 0.0])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("rows", [3, 40])
def test_value_count_and_gradient_are_those_of_the_cube(rows, weighted, spread, dtype):
    label = labels(rows, dtype=dtype)
    label[1] = 0
    similar = share_label(label, label)
    weight = dcg_weight(label) if weighted else similar
    distance = distances(rows, spread, dtype=dtype).requires_grad_()
    exact = distance.detach().double().requires_grad_()
    total, count = cube(exact, similar.double(), weight.double(), MARGIN)
    ours, counted = conflict_sum(distance, similar, weight, MARGIN)
    rtol = 1e-13 if dtype == torch.float64 else 1e-6
    assert int(counted) == int(count)
    torch.testing.assert_close(ours.double(), total, rtol=rtol, atol=1e-13)
    (gradient,) = torch.autograd.grad(ranked_triplet(distance, similar, weight, MARGIN), distance)
    (wanted,) = torch.autograd.grad(total / count.clamp_min(1), exact)
    torch.testing.assert_close(gradient.double(), wanted, rtol=rtol, atol=1e-12 + 1e-7 * rtol)


def test_equal_distances_and_a_hinge_at_the_margin():
    label = torch.eye(3, dtype=torch.float64).repeat(4, 1)
    similar, weight = share_label(label, label), dcg_weight(label)
    for margin in (0.0, 0.25, 1.0):
        distance = torch.randint(0, 5, (12, 12), generator=torch.Generator().manual_seed(0)) / 4
        distance = distance.double().requires_grad_()
        total, count = cube(distance, similar, weight, margin)
        ours, counted = conflict_sum(distance, similar, weight, margin)
        assert int(counted) == int(count)
        torch.testing.assert_close(ours, total)
        gradients = [torch.autograd.grad(value, distance)[0] for value in (ours, total)]
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("what", ["all alike", "none alike", "no label", "ranked well"])
def test_without_a_conflict_it_is_zero(what):
    label = {"all alike": torch.ones(4, 2), "no label": torch.zeros(4, 2)}.get(what, torch.eye(4))
    distance = (1 - label @ label.T) if what == "ranked well" else torch.zeros(4, 4)
    if what == "none alike":
        distance = distance - torch.eye(4)  # only a row with itself is similar
    distance = distance.requires_grad_()
    value = ranked_triplet(distance, share_label(label, label), dcg_weight(label), MARGIN)
    value.backward()
    assert value == 0 and bool((distance.grad == 0).all())


def test_a_nan_is_not_hidden():
    label = labels(6)
    distance = distances(6)
    distance[2, 4] = torch.nan
    similar = share_label(label, label)
    assert bool(ranked_triplet(distance, similar, dcg_weight(label), MARGIN).isnan())


def test_a_batch_of_512_needs_no_cube():
    label = labels(512, 24, dtype=torch.float32)
    distance = distances(512, dtype=torch.float32).requires_grad_()
    similar, weight = share_label(label, label), dcg_weight(label)
    with Largest() as seen:
        ranked_triplet(distance, similar, weight, MARGIN).backward()
    assert seen.numel <= 512 * 513 and bool(distance.grad.isfinite().all())
    few = slice(0, 3)  # anchors are independent: three of them by the cube
    mask = similar[few, :, None] * (1 - similar[few])[:, None]
    triples = weight[few, :, None] * (distance[few, :, None] - distance[few, None] + MARGIN)
    total, _ = conflict_sum(distance, similar, weight, MARGIN)
    (ours,) = torch.autograd.grad(total, distance)
    (wanted,) = torch.autograd.grad((triples * mask).clamp_min(0).sum(), distance)
    torch.testing.assert_close(ours[few], wanted[few], rtol=1e-4, atol=1e-4)
