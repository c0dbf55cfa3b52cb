"""SHC: class similarity, distance bounds, centres by what they achieve, loss, a training run."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from common.batch import Features
from common.schedules import CosineConfig
from models.base import Backbone, Outputs, Problem, Progress, Terms
from models.centers.class_similarity import class_similarity
from models.centers.semantic import (
    center_report,
    gilbert_varshamov,
    mds_centers,
    semantic_centers,
    sphere_packing,
)
from models.image.image_hash import StandardizeConfig
from models.image.shc import SHC, SHCConfig, SHCLoss
from tests.golden.adapters._common import compare_gradients, label_batch
from tests.golden.harness import Case, GoldenError, adapter
from tests.golden.replay import Setup, compare_trajectory, problem_of, rmsprop_groups

EFFORT = 0.2  # a fifth of what a run spends has to do
STATISTICS = {
    "min": "min", "max": "max", "mean": "mean", "var": "variance", "obj": "objective",
    "corr": "correlation",
}  # fmt: skip


@adapter("shc_similarity")
def shc_similarity(case: Case) -> None:
    """S and three figures of it; of several labels the first is the row's class."""
    similarity = class_similarity(case.tensor("in_logits"), case.tensor("in_labels"))
    case.close("out_S", similarity)
    others = ~torch.eye(len(similarity), dtype=torch.bool)
    case.close("out_asym", (similarity - similarity.T).abs().max())
    case.close("out_min", similarity.min())
    case.close("out_max_offdiag", similarity[others].max())


@adapter("shc_margin")
def shc_margin(case: Case) -> None:
    """Both bounds for every pair of code length and number of classes."""
    for key, bound in (("out_d", gilbert_varshamov), ("out_dmin", sphere_packing)):
        table = [[bound(bits, c) for c in case.cfg("classes")] for bits in case.cfg("bits")]
        case.equal(key, table)


@adapter(
    "shc_centers",
    not_compared={"out_*_centers": "of another search; their figures are compared, and beaten"},
)
def shc_centers(case: Case) -> None:
    """Our figures of the recorded centres, and that our centres are better ones.

    Better: no pair closer than the reference's closest or, for semantic centres, than d; and an
    objective that is no larger. Where the reference stayed below d, ours may not.
    """
    similarity = case.tensor("in_S")
    bits, distance = case.cfg("bit"), gilbert_varshamov(case.cfg("bit"), len(similarity))
    case.agree("n_class", len(similarity))
    case.agree("d", distance)
    reports = {}
    for kind in ("mds", "shc"):
        recorded = case.tensor(f"out_{kind}_centers")
        case.equal(f"out_{kind}_nzero", (recorded == 0).sum())
        reports[kind] = center_report(recorded, similarity)
        for theirs, ours in STATISTICS.items():
            compare_figure(case, f"out_{kind}_{theirs}", getattr(reports[kind], ours))
    trace = np.array(case.array("out_loss1_trace"))  # the start, then every epoch
    trace[0] = reports["mds"].objective
    trace[1 + trace[1:].argmin()] = reports["shc"].objective
    case.close("out_loss1_trace", trace, 1e-5)  # computed in float32 there

    generator = torch.Generator().manual_seed(case.cfg("seed"))
    spread = mds_centers(len(similarity), bits, generator, effort=EFFORT)
    fitted = semantic_centers(similarity, bits, generator, effort=EFFORT)
    ours = center_report(fitted, similarity)
    require(case, center_report(spread, similarity).min >= max(reports["mds"].min, distance))
    require(case, ours.min >= distance)
    require(case, ours.objective <= reports["shc"].objective)


def compare_figure(case: Case, key: str, ours: float) -> None:
    """Compare a figure; a correlation with equal distances is NaN in both."""
    if math.isnan(float(case.array(key))) and math.isnan(ours):
        case.compared.add(key)
    else:
        case.close(key, ours)


def require(case: Case, better: bool) -> None:
    """Fail unless ours is at least as good."""
    if not better:
        raise GoldenError(f"{case.source}: our centres are worse than the recorded ones")


def with_centers(case: Case, config: SHCConfig, dtype: torch.dtype) -> SHCLoss:
    """Return a loss with the recorded centres."""
    centers = case.tensor("in_centers", dtype)
    loss = SHCLoss(config, Problem(centers.shape[1], len(centers))).to(dtype)
    loss.set_centers(centers)
    return loss


@adapter("shc_stage3", not_read={"cfg_multilabel": "one label is the first of its row"})
def shc_stage3(case: Case) -> None:
    """Terms, total and gradient; the target is the first label's centre."""
    code = case.leaf("in_u")
    loss = with_centers(case, SHCConfig(case.cfg("lambda"), several="first"), code.dtype)
    batch = label_batch(case.tensor("in_labels"))
    terms = loss(Outputs(image_code=code), batch, Progress())
    case.close("out_center", terms.center)
    case.close("out_quant", loss.quantization(code))
    case.close("out_total", terms.total())
    compare_gradients(case, terms.total(), grad_u=code)


class OneLayer(Backbone):
    """The recorded stand-in for an encoder: a linear layer and a ReLU on vectors."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.widths = self.token_widths = {"image": width}
        self.fc1 = nn.Linear(inputs, width)

    def encode_image(self, image: Tensor, tokens: bool = False) -> Features:
        return Features(self.fc1(image).relu(), None, None)


@adapter(
    "traj_shc",
    not_read={
        "cfg_method": "a note in words",
        "cfg_seed": "weights and batches are recorded, nothing is drawn",
        "cfg_multilabel": "one label is the first of its row",
    },
)
def traj_shc(case: Case) -> None:
    """Stage 3 as released: the whole recorded run."""
    case.agree("optimizer", "RMSprop")
    case.agree("scheduler", "CosineAnnealingLR per epoch")
    case.agree("T_max", case.cfg("epochs"))
    compare_trajectory(case, hashing_network)


def hashing_network(case: Case, dtype: torch.dtype) -> Setup:
    """Return network, loss and optimiser of a recorded run."""
    problem = problem_of(case)
    width, inputs = case.array("w_fc1.weight").shape
    model = SHC(StandardizeConfig(), problem, OneLayer(inputs, width))
    loss = with_centers(case, SHCConfig(case.cfg("lambda"), several="first"), dtype)

    def terms(ours: Terms, outputs: Outputs) -> dict[str, Tensor]:
        return {"center": ours.center, "quant": loss.quantization(outputs.image_code)}

    cosine = CosineConfig(case.cfg("eta_min") / case.cfg("lr"))
    return Setup(
        model=model,
        loss=loss,
        backbone="",
        names={"hash_layer.": "model.heads.image."},
        columns={"": "head"},
        optim=rmsprop_groups(case, "cosine", cosine),
        terms=terms,
        real=model.encode,
        constants=("loss.",),
    )
