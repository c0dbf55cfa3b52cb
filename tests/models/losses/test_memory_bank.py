from __future__ import annotations

import math

import pytest
import torch

from models.base import Problem
from models.losses.memory_bank import MemoryBank, memory_likelihood, train_labels
from models.losses.pair_terms import pair_likelihood
from utils.errors import UserError

ROWS, BITS = 7, 4


def problem(seed=0, **keys):
    generator = torch.Generator().manual_seed(seed)
    return Problem(BITS, n_classes=3, n_train=ROWS, generator=generator, **keys)


def draws(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_it_starts_from_the_run_s_seed_and_enters_the_checkpoint():
    memory = MemoryBank(problem())
    assert memory.rows.shape == (ROWS, BITS) and not memory.rows.requires_grad
    assert torch.equal(memory.rows, MemoryBank(problem()).rows)
    assert not torch.equal(memory.rows, MemoryBank(problem(seed=1)).rows)
    task = problem()  # two banks of one run differ
    assert not torch.equal(MemoryBank(task).rows, MemoryBank(task).rows)
    assert list(memory.state_dict()) == ["rows"]


def test_writing_touches_the_named_rows_alone_and_takes_no_gradient():
    memory = MemoryBank(problem())
    before, codes = memory.rows.clone(), draws(2, BITS).requires_grad_()
    memory.write(torch.tensor([5, 1]), codes)
    torch.testing.assert_close(memory.rows[[5, 1]], codes.detach().float())
    others = [0, 2, 3, 4, 6]
    assert torch.equal(memory.rows[others], before[others])
    assert not memory.rows.requires_grad


def by_loops(memory, code, similar, limit):
    total = 0.0
    for n in range(len(memory)):
        for b in range(len(code)):
            inner = sum(x * y for x, y in zip(memory[n].tolist(), code[b].tolist(), strict=True))
            theta = max(-limit, min(limit, inner)) / 2
            total += math.log1p(math.exp(theta)) - float(similar[n, b]) * theta
    return total / (len(memory) * len(code))


@pytest.mark.parametrize("scale", [1.0, 200.0])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_likelihood_is_that_of_the_equation(batch, scale):
    memory, code = scale * draws(ROWS, BITS), draws(batch, BITS, seed=1).requires_grad_()
    similar = (draws(ROWS, batch, seed=2) > 0).double()
    value = memory_likelihood(memory, code, similar)
    assert value.shape == ()
    assert value.item() == pytest.approx(by_loops(memory, code, similar, 64.0), rel=1e-8)
    inner = memory @ code.T
    assert bool((inner.abs() > 64).any()) == (scale > 1), "the clamp has to be tried out too"
    plain = pair_likelihood(inner.clamp(-64, 64) / 2, similar).mean()
    (ours,) = torch.autograd.grad(3 * value, code)
    (theirs,) = torch.autograd.grad(3 * plain, code)
    torch.testing.assert_close(ours, theirs)


def test_float32_loses_nothing_over_many_rows():
    memory, code = 4 * draws(5000, 64), draws(128, 64, seed=1).tanh()
    similar = (draws(5000, 128, seed=2) > 1).double()
    exact = memory_likelihood(memory, code, similar)
    rough = memory_likelihood(memory.float(), code.float(), similar.float())
    assert rough.item() == pytest.approx(exact.item(), rel=1e-5)


def test_a_memory_may_be_written_before_the_backward_pass():
    task = problem()  # two banks of one run differ
    memory, code = MemoryBank(task).double(), draws(2, BITS).requires_grad_()
    value = memory_likelihood(memory.rows, code, torch.ones(ROWS, 2, dtype=torch.float64))
    (expected,) = torch.autograd.grad(value, code, retain_graph=True)
    memory.write(torch.arange(ROWS), torch.zeros(ROWS, BITS))
    (gradient,) = torch.autograd.grad(value, code)
    assert torch.equal(gradient, expected)


def test_a_code_without_gradient_is_measured_too():
    value = memory_likelihood(draws(ROWS, BITS), draws(2, BITS), torch.zeros(ROWS, 2).double())
    assert not value.requires_grad and bool(value.isfinite())


def test_labels_are_needed():
    labels = torch.eye(3)[torch.arange(ROWS) % 3].to(torch.int8)
    assert train_labels(problem(train_labels=labels), "MITH").dtype == torch.float32
    with pytest.raises(UserError, match="MITH compares .* but was given none"):
        train_labels(problem(), "MITH")
    with pytest.raises(UserError, match="those of 3 rows"):
        train_labels(problem(train_labels=labels[:3]), "MITH")
    with pytest.raises(UserError, match="n_train=0"):
        MemoryBank(Problem(BITS, n_classes=3))
