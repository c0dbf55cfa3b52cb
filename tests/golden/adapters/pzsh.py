"""PZSH: alignment, proxy-hash loss and its memory, both together, centres, a training run."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from common.batch import Batch, Features
from common.schedules import StepConfig
from models.base import Backbone, Outputs, Problem, Progress, Terms
from models.centers.hash_centers import center_distances
from models.losses.quantization import quantization_loss
from models.zero_shot.pzsh import (
    PSEUDO,
    PZSH,
    PZSHConfig,
    PZSHLoss,
    PZSHLossConfig,
    class_contrast,
    random_centers,
)
from tests.golden.adapters._common import compare_gradients
from tests.golden.harness import Case, adapter
from tests.golden.replay import NOT_READ, Setup, compare_trajectory, problem_of, rmsprop_groups

HASH_KEYS = {"alpha": "alpha", "beta": "beta", "lambda_quant": "lambda_quant",
             "proxy_warmup": "proxy_warmup", "temperature": "temperature"}  # fmt: skip


@adapter("pzsh_align")
def pzsh_align(case: Case) -> None:
    """The contrast with and without a row's own pseudo-image, and both gradients."""
    real, synthetic = case.leaf("in_real"), case.leaf("in_synthetic")
    label, temperature = case.tensor("in_labels"), case.cfg("temperature")
    loss = class_contrast(real, synthetic, label, temperature)
    case.close("out_loss", loss)
    with_self = class_contrast(real, synthetic, label, temperature, with_self=True)
    case.close("out_loss_include_self", with_self)
    compare_gradients(case, loss, grad_real=real, grad_synthetic=synthetic)


@adapter("pzsh_centers")
def pzsh_centers(case: Case) -> None:
    """The centres themselves, and the figures of them."""
    centers = random_centers(case.cfg("n_class"), case.cfg("bit"), case.cfg("seed"))
    case.equal("out_centers", centers)
    smallest, mean = center_distances(centers)
    distances = (centers.shape[1] - centers @ centers.T) / 2
    case.close("out_min", smallest)
    case.close("out_mean", mean)
    case.close("out_max", distances.max())
    case.equal("out_row_sums", centers.sum(1))


def recorded_loss(case: Case, dtype: torch.dtype) -> PZSHLoss:
    """Return the loss with the file's constants, centres and memory."""
    keys = {ours: case.cfg(name) for name, ours in HASH_KEYS.items() if f"cfg_{name}" in case}
    centers, rows = case.tensor("in_centers", dtype), case.tensor("in_memory_hash", dtype)
    problem = Problem(centers.shape[1], len(centers), n_train=len(rows))
    loss = PZSHLoss(PZSHLossConfig(**keys), problem).to(dtype)
    loss.centers.copy_(centers)
    loss.memory.rows.copy_(rows)
    if "in_memory_labels" in case:
        loss.memory_label.copy_(case.tensor("in_memory_labels"))
    return loss


def step_of(case: Case, real: Tensor, synthetic: Tensor) -> tuple[PZSHLoss, Terms, Tensor]:
    """Return the loss after one batch, its terms and the batch's codes."""
    code = case.leaf("in_query_hash")
    loss = recorded_loss(case, code.dtype)
    outputs = Outputs(
        image_code=code,
        image_momentum=case.tensor("in_momentum_hash"),
        image_aligned=real,
        pseudo_feature=synthetic,
        caption_feature=torch.zeros_like(synthetic),
    )
    batch = Batch(label=case.tensor("in_labels"), index=case.tensor("in_indices"))
    return loss, loss(outputs, batch, Progress(epoch=case.cfg("epoch"))), code


@adapter("pzsh_hash")
def pzsh_hash(case: Case) -> None:
    """Raw terms, their sum, its gradient and the memory; without anything to align to."""
    nothing = case.tensor("in_query_hash").new_zeros(len(case.array("in_query_hash")), 1)
    loss, terms, code = step_of(case, nothing, nothing)
    case.agree("bit", code.shape[1])
    label, alpha = case.tensor("in_labels"), loss.config.alpha  # the file's total is before α
    case.close("out_center_loss", loss.center_loss(code, label))
    case.close("out_quant_loss", quantization_loss(code))
    case.close("out_proxy_loss", loss.attraction(code, label))
    total = terms.total() / alpha
    case.close("out_total", total)
    compare_gradients(case, total, grad_query=code)
    case.close("out_memory_hash", loss.memory.rows)
    case.equal("out_memory_labels", loss.memory_label)


@adapter("pzsh_total")
def pzsh_total(case: Case) -> None:
    """Alignment and α times the hashing terms, with both gradients."""
    real = case.leaf("in_real")
    loss, terms, code = step_of(case, real, case.tensor("in_synthetic"))
    case.close("out_align", terms.align)
    hashing = terms.center + terms.quant + terms.proxy
    case.close("out_hash", hashing / loss.config.alpha)
    case.close("out_total", terms.total())
    compare_gradients(case, terms.total(), grad_real=real, grad_query=code)


class TwoLayers(Backbone):
    """The recorded stand-in for BLIP's encoder: two linear layers on vectors."""

    def __init__(self, inputs: int, hidden: int, width: int) -> None:
        super().__init__()
        self.widths = self.token_widths = {"image": width}
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def encode_image(self, image: Tensor, tokens: bool = False) -> Features:
        return Features(self.fc2(self.fc1(image).relu()))


ENCODER = "blip.visual_encoder."


@adapter("traj_pzsh", not_read=NOT_READ)
def traj_pzsh(case: Case) -> None:
    """The whole recorded run; where it was evaluated, the twin's steps there are taken too."""
    case.agree("optimizer", "RMSprop")
    case.agree("scheduler", "StepLR per epoch")
    compare_trajectory(case, training)


def training(case: Case, dtype: torch.dtype) -> Setup:
    """Return model, loss and optimiser of a recorded run."""
    hidden, inputs = case.array(f"w_encoder_q.{ENCODER}fc1.weight").shape
    width, head = (
        len(case.array(f"w_encoder_q.{name}.weight")) for name in (f"{ENCODER}fc2", "hash_head.0")
    )
    config = PZSHConfig(hidden=head, momentum=case.cfg("ema_momentum"))
    model = PZSH(config, problem_of(case), TwoLayers(inputs, hidden, width))
    loss = recorded_loss(case, dtype)
    synthetic = case.tensor("in_synthetic", dtype)

    def extend(batch: Batch) -> Batch:
        pseudo = Batch(batch.label, batch.index, image_features=Features(synthetic[batch.index]))
        return dataclasses.replace(batch, auxiliary={PSEUDO: pseudo})

    every, batches = case.cfg("eval_every"), case.cfg("eval_forwards_each")

    def after_epoch(epoch: int) -> None:
        if every and (epoch + 1) % every == 0:  # released: every evaluated batch moves the twin
            for _ in range(batches):
                model.update_twin()

    def terms(ours: Terms, outputs: Outputs) -> dict[str, Tensor]:
        code, scale = outputs.image_code, loss.config.alpha
        hashing = ours.center + ours.quant + ours.proxy
        return {
            "align": ours.align,
            "hash": hashing / scale,
            "center": ours.center / scale,
            "quant": quantization_loss(code),
            "proxy": ours.proxy / (scale * loss.config.beta),
        }

    everything = Batch(case.tensor("in_labels", dtype), torch.arange(len(synthetic)),
                       image=case.tensor("in_image", dtype))  # fmt: skip
    steps = StepConfig(case.cfg("step_size"), case.cfg("gamma"))
    return Setup(
        model=model,
        loss=loss,
        backbone=f"encoder_q.{ENCODER}",
        names={
            "encoder_q.hash_head.": "model.head.",
            f"encoder_k.{ENCODER}": "model.twin.backbone.",
            "encoder_k.hash_head.": "model.twin.head.",
        },
        columns={"": "head"},
        optim=rmsprop_groups(case, "step", steps),
        terms=terms,
        real=model.encode,
        final={
            "real_momentum": lambda: model.momentum_code(
                everything, model.backbone(everything, "image").pooled
            ),
            "aligned": lambda: model.eval()(everything).image_aligned,
            "memory_hash": lambda: loss.memory.rows,
            "memory_labels": lambda: loss.memory_label,
        },
        constants=("loss.",),
        aliases={"encoder_k_last_bias": "encoder_k.hash_head.2.bias"},
        extend=extend,
        after_epoch=after_epoch,
    )
