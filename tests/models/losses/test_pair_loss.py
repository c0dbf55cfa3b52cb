"""What batches are paired with: each other, or the newest codes of all training rows."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from common.registry import LOSSES
from common.storage import checkpoint
from models.base import Problem
from models.image.dpsh import DPSHConfig, DPSHLoss
from models.image.hashnet import HashNetLoss
from models.losses.pair_loss import PairwiseLoss, balanced_terms
from tests.models.classics import BITS, CLASSES, TRAIN, close, example, mean, problem, terms_of
from utils.errors import UserError

ENTRIES = [LOSSES.get(name) for name in LOSSES.names()]
KINDS = [(e.target, e.config) for e in ENTRIES if issubclass(e.target, PairwiseLoss)]
every_kind = pytest.mark.parametrize(("build", "config"), KINDS, ids=lambda kind: kind.__name__)


def with_memory(build, config):
    return build(config(pairs="memory"), problem()).double()


def test_there_are_losses_over_pairs():
    assert {DPSHLoss, HashNetLoss} <= {build for build, _ in KINDS}


@every_kind
def test_a_batch_fills_the_memory_before_it_is_compared(build, config):
    loss, (code, batch) = with_memory(build, config), example()
    assert not loss.memory.codes.rows.any() and not loss.memory.label.any()
    terms_of(loss, code, batch)
    rows = loss.memory.codes.rows
    assert torch.equal(rows[batch.index].sign(), code.sign())  # perhaps squashed
    assert torch.equal(loss.memory.label[batch.index], batch.label > 0)
    others = torch.ones(TRAIN, dtype=torch.bool)
    others[batch.index] = False
    assert not rows[others].any() and not loss.memory.label[others].any()
    assert not rows.requires_grad


@every_kind
def test_a_memory_of_nothing_but_the_batch_has_the_batch_s_pairs(build, config):
    code, batch = example()
    batch = dataclasses.replace(batch, index=torch.arange(len(code)))
    one = build(config(), problem()).double()
    other = build(config(pairs="memory"), Problem(BITS, CLASSES, len(code))).double()
    first, second = terms_of(one, code, batch), terms_of(other, code, batch)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value)
    # the memory's rows are constants: of a symmetric loss, half of the gradient
    pairs = [terms.total() - terms.get("quant", 0.0) for terms in (first, second)]
    (both,), (half,) = (torch.autograd.grad(p, code, retain_graph=True) for p in pairs)
    torch.testing.assert_close(half, both / 2)


@every_kind
def test_rows_of_an_evaluation_do_not_enter_the_memory(build, config):
    loss, (code, batch) = with_memory(build, config).eval(), example()
    assert terms_of(loss, code, batch).total().isfinite()
    assert not loss.memory.codes.rows.any()


@every_kind
def test_a_checkpoint_brings_the_memory_back(build, config, tmp_path):
    loss, (code, batch) = with_memory(build, config), example()
    terms_of(loss, code, batch)
    checkpoint.save(tmp_path / "c", {"loss": loss})
    other = with_memory(build, config)
    checkpoint.load_modules(tmp_path / "c", {"loss": other})
    later, rows = example(seed=2, rows=3)
    for name, value in terms_of(loss, later, rows).items():
        assert torch.equal(terms_of(other, later, rows)[name], value)


@every_kind
def test_the_pairs_of_a_batch_need_no_memory(build, config):
    assert not build(config(), problem()).state_dict()


def test_a_memory_without_rows_is_refused():
    with pytest.raises(UserError, match="n_train=0"):
        DPSHLoss(DPSHConfig(pairs="memory"), Problem(BITS, CLASSES))


def test_balanced_terms_are_two_means():
    loss = torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    similar = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]]).double()
    terms = balanced_terms(loss, similar)
    close(terms.similar, mean([loss[i, j].item() for i, j in similar.nonzero().tolist()]))
    close(terms.dissimilar, mean([loss[i, j].item() for i, j in (1 - similar).nonzero().tolist()]))
    assert balanced_terms(loss, torch.ones(3, 4)).dissimilar == 0
