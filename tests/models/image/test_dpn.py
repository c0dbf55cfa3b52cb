"""DPN: the hinge against a loop, targets that follow the codes, resuming."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from common.storage import checkpoint
from models.image.dpn import DPNConfig, DPNLoss, class_majority
from tests.models.classics import BITS, CLASSES, ROWS, close, example, mean, problem, terms_of


def make_loss(seed=0, **keys):
    return DPNLoss(DPNConfig(**keys), problem(seed)).double()


def vote(loss, label):
    """Return the target of one row, bit by bit."""
    target = []
    for k in range(BITS):
        votes = sum(loss.centers[c, k].item() for c in range(CLASSES) if label[c])
        target.append(loss.tie_break[k].item() if votes == 0 else (1 if votes > 0 else -1))
    return target


@pytest.mark.parametrize("over_bits", ["mean", "sum"])
def test_loop(over_bits):
    loss, (code, batch) = make_loss(margin=0.8, over_bits=over_bits, lambda_norm=0.3), example()
    terms = terms_of(loss, code, batch)
    hinges = [
        max(0.8 - u * t, 0)
        for row, label in zip(code.tolist(), batch.label.tolist(), strict=True)
        for u, t in zip(row, vote(loss, label), strict=True)
    ]
    close(terms.polar, mean(hinges) if over_bits == "mean" else sum(hinges) / ROWS)
    close(terms.norm, 0.3 * mean([v * v for v in code.flatten().tolist()]))
    assert set(terms_of(make_loss(), code, batch)) == {"polar"}


@pytest.mark.parametrize("over_bits", ["mean", "sum_labels"])
def test_the_first_label_alone(over_bits):
    loss = make_loss(over_bits=over_bits, several="first")
    code, batch = example()
    alone = dataclasses.replace(batch, label=batch.label.clone())
    alone.label[0, alone.label[0].argmax() + 1 :] = 0
    assert batch.label[0].sum() == 2 and alone.label[0].sum() == 1
    every = make_loss(over_bits=over_bits)
    close(terms_of(loss, code, batch).polar, terms_of(every, code, alone).polar.item())
    others = [make_loss(seed, over_bits=over_bits) for seed in range(3)]
    assert any(terms_of(o, code, batch).polar != terms_of(o, code, alone).polar for o in others)


@pytest.mark.parametrize("centers", ["balanced", "bernoulli"])
def test_every_label_of_a_row_has_its_hinge(centers):
    loss = make_loss(margin=0.8, over_bits="sum_labels", centers=centers)
    code, batch = example()
    polar = terms_of(loss, code, batch).polar
    total, slope = 0.0, torch.zeros_like(code)
    for i in range(ROWS):
        for c in range(CLASSES):
            for k in range(BITS):
                target = loss.centers[c, k].item()
                if batch.label[i, c] and 0.8 - code[i, k].item() * target > 0:
                    total += 0.8 - code[i, k].item() * target
                    slope[i, k] -= target
    close(polar, total / ROWS)
    (gradient,) = torch.autograd.grad(polar, code)
    torch.testing.assert_close(gradient, slope / ROWS)
    assert batch.label[0].sum() == 2 and not batch.label[-1].any() and not gradient[-1].any()


def test_rows_of_one_label_have_one_hinge_either_way():
    code, batch = example()
    one = dataclasses.replace(batch, label=torch.eye(CLASSES)[torch.arange(ROWS) % CLASSES])
    each, vote = (
        terms_of(make_loss(over_bits=kind), code, one).polar for kind in ("sum_labels", "sum")
    )
    assert torch.equal(each, vote)


def test_the_first_targets_are_balanced_and_follow_from_the_seed():
    first, second, other = make_loss(), make_loss(), make_loss(seed=1)
    assert torch.equal(first.centers, second.centers)
    assert not torch.equal(first.centers, other.centers)
    assert (first.centers == -1).sum(1).tolist() == [BITS // 2] * CLASSES


def test_majority_loop():
    generator = torch.Generator().manual_seed(3)
    code = 2 * torch.randn(20, BITS, generator=generator)
    label = torch.rand(20, CLASSES, generator=generator) < 0.3
    label[:, 2] = False
    majority = class_majority(code, label, 1.0)
    for c in range(CLASSES):
        for k in range(BITS):
            members = [code[i, k].item() for i in range(20) if label[i, c]]
            votes = sum(u > 1 for u in members) - sum(u < -1 for u in members)
            assert majority[c, k] == (votes > 0) - (votes < 0)
    assert not majority[2].any()


def test_targets_follow_the_codes_at_the_start_of_an_epoch():
    loss, (code, batch) = make_loss(targets="adaptive"), example()
    start = loss.centers.clone()
    terms_of(loss, 3 * code, batch)
    terms_of(loss, 2 * code, batch)
    assert torch.equal(loss.centers, start), "moved within an epoch"
    terms_of(loss, -code, batch, epoch=1)
    majority = class_majority(2 * code.detach(), batch.label, 1.0)
    assert (majority == 0).any() and (majority == -start).any()
    assert torch.equal(loss.centers, torch.where(majority == 0, start, majority))
    moved = loss.centers.clone()
    terms_of(loss, code, batch, epoch=1)
    assert torch.equal(loss.centers, moved)


def test_rows_of_an_evaluation_move_nothing():
    loss, (code, batch) = make_loss(targets="adaptive").eval(), example()
    start = loss.centers.clone()
    terms_of(loss, 3 * code, batch, epoch=4)
    assert torch.equal(loss.centers, start) and not loss.memory.codes.rows.any()


def test_a_resumed_run_has_the_same_targets(tmp_path):
    def epoch(loss, number):
        for seed in (1, 2):
            code, batch = example(seed=10 * number + seed)
            terms = terms_of(loss, 2 * code, batch, epoch=number)
        return terms.total()

    whole = make_loss(targets="adaptive")
    for number in range(3):
        if number == 2:
            checkpoint.save(tmp_path / "c", {"loss": whole})
        expected = epoch(whole, number)
    resumed = make_loss(targets="adaptive")
    checkpoint.load_modules(tmp_path / "c", {"loss": resumed})
    assert torch.equal(epoch(resumed, 2), expected)
    assert torch.equal(resumed.centers, whole.centers)


def test_fixed_targets_need_no_memory():
    assert set(make_loss().state_dict()) == {"centers", "tie_break"}
