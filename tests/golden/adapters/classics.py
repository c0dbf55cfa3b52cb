"""The image-hashing classics as DeepHash-pytorch (``_dh``) and cisip-FIRe (``_fire``) compute them.

A term's raw value is taken from a loss that gives it weight 1.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor

from models.base import HashLoss, Outputs, Problem, Progress, Terms
from models.image.dpn import DPNConfig, DPNLoss, class_majority
from models.image.dpsh import DPSHConfig, DPSHLoss
from models.image.dsh import DSHConfig, DSHLoss
from models.image.dtsh import DTSHConfig, DTSHLoss
from models.image.greedyhash import GreedyHashConfig, GreedyHashLoss
from models.image.orthohash import OrthoHashConfig, OrthoHashLoss
from models.losses.multilabel import multilabel_cross_entropy
from models.losses.pair_loss import LabeledMemoryBank
from tests.golden.adapters._common import compare_gradients, label_batch
from tests.golden.harness import Case, adapter

SIMILAR = {"cfg_multilabel": "similarity is a shared label in both"}
SHARES = {"cfg_multilabel": "one label has the whole share of its row"}


def problem_of(case: Case) -> Problem:
    """Return the task: K of the outputs, C of the labels, N of the memory if there is one."""
    if "cfg_num_train" in case:
        rows = case.cfg("num_train")
    else:
        rows = len(case.array("in_U")) if "in_U" in case else 0
    return Problem(case.array("in_u").shape[1], case.array("in_labels").shape[1], rows)


def terms_of(case: Case, loss: HashLoss, code: Tensor) -> Terms:
    """Return the loss's terms of the recorded labels and row numbers."""
    batch = label_batch(case.tensor("in_labels"))
    if "in_indices" in case:
        batch = dataclasses.replace(batch, index=case.tensor("in_indices"))
    return loss(Outputs(image_code=code), batch, Progress())


def raw_quant(case: Case, build: type[HashLoss], config: Any, code: Tensor) -> Tensor:
    """Return the quantisation term at weight 1; it depends on the codes alone."""
    changes = {"lambda_quant": 1.0} | ({"pairs": "batch"} if hasattr(config, "pairs") else {})
    loss = build(dataclasses.replace(config, **changes), problem_of(case)).to(code.dtype)
    return terms_of(case, loss, code).quant


def load_memory(case: Case, memory: LabeledMemoryBank) -> None:
    """Set a memory to the one that was recorded before the batch is written."""
    memory.codes.rows.copy_(case.tensor("in_U"))
    memory.label.copy_(case.tensor("in_Y"))


def compare_memory(case: Case, memory: LabeledMemoryBank) -> None:
    """Compare what of the memory was recorded after the batch was written."""
    if "out_U" in case:
        case.equal("out_U", memory.codes.rows)
    if "out_Y" in case:
        case.equal("out_Y", memory.label)


@adapter(
    "dpn_dh",
    "dpn_fire",
    not_compared={
        "out_ce": "a classifier beside the hash layer, which has weight 0 as released; ours has "
        "none (added with its weight, and compared where every row has one label)"
    },
    not_read={
        "cfg_multilabel": "one label counts like several",
        "cfg_num_train": "only files with a memory have it",
    },
)
def dpn(case: Case) -> None:
    """Total and gradient; the memory and the adapted targets, before the undecided keep theirs.

    cisip-FIRe sums over bits and over the classes of a row, adds the mean square and weights the
    hinge (``cfg_sl``). Without recorded tie-breaking bits, a bit without majority has no target.
    """
    fire = "cfg_sl" in case
    config = DPNConfig(
        margin=case.cfg("margin"),
        targets="fixed" if fire else "adaptive",
        over_bits="sum_labels" if fire else "mean",
        lambda_norm=case.cfg("reg") if fire else 0.0,
    )
    centers, code, label = case.tensor("in_centers"), case.leaf("in_u"), case.tensor("in_labels")
    loss = DPNLoss(config, problem_of(case)).to(code.dtype)
    loss.centers.copy_(centers)
    ties = "in_random_center01"
    loss.tie_break.copy_(case.tensor(ties) * 2 - 1 if ties in case else torch.zeros(()))
    terms = terms_of(case, loss, code)
    total = terms.total()
    if fire:
        case.close("out_sl", terms.polar)
        unit = DPNLoss(dataclasses.replace(config, lambda_norm=1.0), problem_of(case))
        case.close("out_reg", terms_of(case, unit.to(code.dtype), code).norm)
        total = case.cfg("sl") * terms.polar + terms.get("norm", 0.0)
        entropy = multilabel_cross_entropy(case.tensor("in_logits"), label)
        if bool((label.sum(1) == 1).all()):
            case.close("out_ce", entropy)
        total = total + case.cfg("ce") * entropy
    if loss.memory is not None:
        compare_memory(case, loss.memory)
        rows = loss.memory.codes.rows
        majority = class_majority(rows, loss.memory.label, config.margin)
        case.equal("out_adaptive_centers", majority)
    case.close("out_total", total)
    compare_gradients(case, total, grad_u=code)


@adapter("orthocos_fire", not_read=SHARES)
def orthocos(case: Case) -> None:
    """Total, terms and gradient with the cosine margin."""
    compare_orthohash(case, "cosine")


@adapter("orthoarc_fire", not_read=SHARES)
def orthoarc(case: Case) -> None:
    """Total, terms and gradient with the arc margin."""
    compare_orthohash(case, "arc")


def compare_orthohash(case: Case, form: Literal["cosine", "arc"]) -> None:
    """Compare all results; a quantisation term of weight 0 was not computed there."""
    config = OrthoHashConfig(
        form=form, margin=case.cfg("m"), scale=case.cfg("s"), lambda_quant=case.cfg("quan")
    )
    code = case.leaf("in_u")
    loss = OrthoHashLoss(config, problem_of(case)).to(code.dtype)
    loss.centers.copy_(case.tensor("in_centers"))
    terms = terms_of(case, loss, code)
    case.close("out_ce", terms.cls)
    weighted = config.lambda_quant != 0
    case.close("out_quant", raw_quant(case, OrthoHashLoss, config, code) if weighted else 0.0)
    case.close("out_total", terms.total())
    compare_gradients(case, terms.total(), grad_u=code)


@adapter("greedyhash_dh", "greedyhash_fire", not_read=SHARES)
def greedyhash(case: Case) -> None:
    """Total, terms and straight-through gradients, of the classifier too.

    DeepHash-pytorch takes the first of several labels and has no bias.
    """
    fire = "in_fc_bias" in case
    config = GreedyHashConfig(
        lambda_quant=case.cfg("alpha"),
        power=case.cfg("pow") if "cfg_pow" in case else GreedyHashConfig.power,
        bias=fire,
        labels="all" if fire else "first",
    )
    code = case.leaf("in_u")
    loss = GreedyHashLoss(config, problem_of(case)).to(code.dtype)
    loss.classifier.load_state_dict(case.weights("in_fc_"))
    terms = terms_of(case, loss, code)
    if "out_ce" in case:
        case.close("out_ce", terms.cls)
    case.close("out_quant", raw_quant(case, GreedyHashLoss, config, code))
    case.close("out_total", terms.total())
    inputs = {"grad_u": code}
    if "out_grad_fc" in case:
        inputs["grad_fc"] = loss.classifier.weight
    compare_gradients(case, terms.total(), **inputs)


@adapter("dpsh_dh", "dpsh_fire", not_read=SIMILAR)
def dpsh(case: Case) -> None:
    """Total, terms, gradient and the memory; cisip-FIRe balances similar and dissimilar pairs."""
    balanced = "out_likelihood" in case
    config = DPSHConfig(
        pairs="memory",
        weights="balanced" if balanced else "equal",
        lambda_quant=case.cfg("alpha"),
    )
    code = case.leaf("in_u")
    loss = DPSHLoss(config, problem_of(case)).to(code.dtype)
    assert loss.memory is not None
    load_memory(case, loss.memory)
    terms = terms_of(case, loss, code)
    if balanced:
        case.close("out_likelihood", terms.similar + terms.dissimilar)
    else:
        case.close("out_pair", terms.pair)
    case.close("out_quant", raw_quant(case, DPSHLoss, config, code))
    case.close("out_total", terms.total())
    compare_gradients(case, terms.total(), grad_u=code)
    compare_memory(case, loss.memory)


@adapter("dsh_dh")
def dsh(case: Case) -> None:
    """Total, terms, gradient and the memory."""
    config = DSHConfig(pairs="memory", margin=case.cfg("margin"), lambda_quant=case.cfg("alpha"))
    code = case.leaf("in_u")
    loss = DSHLoss(config, problem_of(case)).to(code.dtype)
    assert loss.memory is not None
    load_memory(case, loss.memory)
    terms = terms_of(case, loss, code)
    case.close("out_pair", terms.pair)
    case.close("out_quant", raw_quant(case, DSHLoss, config, code))
    case.close("out_total", terms.total())
    compare_gradients(case, terms.total(), grad_u=code)
    compare_memory(case, loss.memory)


@adapter("dtsh_fire", not_read=SIMILAR)
def dtsh(case: Case) -> None:
    """Total, terms and gradient."""
    config = DTSHConfig(margin=case.cfg("alpha"), lambda_quant=case.cfg("lmbd"))
    code = case.leaf("in_u")
    loss = DTSHLoss(config, problem_of(case)).to(code.dtype)
    terms = terms_of(case, loss, code)
    case.close("out_likelihood", terms.triplet)
    case.close("out_quant", raw_quant(case, DTSHLoss, config, code))
    case.close("out_total", terms.total())
    compare_gradients(case, terms.total(), grad_u=code)
