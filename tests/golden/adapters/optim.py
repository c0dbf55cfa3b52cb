"""BertAdam, its learning-rate schedules, and the seeded split."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from common.registry import SCHEDULERS
from common.schedules import WarmupConfig
from dataset.splits import SplitConfig, make_split
from models.base import Progress
from runners.training.optimization import Optimization
from tests.golden.harness import Case, adapter
from tests.golden.replay import bertadam_group


@adapter("bertadam_schedule")
def bertadam_schedule(case: Case) -> None:
    """Factor of every schedule at every step, also beyond the last."""
    config, total = WarmupConfig(case.cfg("warmup")), case.cfg("t_total")
    for key in case.keys("out_*"):
        schedule = SCHEDULERS.get(key.removeprefix("out_")).target
        case.close(key, [schedule(config, int(s), total, 0, 1) for s in case.array("in_step")])


@adapter("bertadam_traj")
def bertadam_traj(case: Case) -> None:
    """Parameters after every step of minimising Σ ½ A (p - t)², one group for each tensor."""
    count = len(case.keys("in_p*_init"))
    parameters = [nn.Parameter(case.tensor(f"in_p{i}_init")) for i in range(count)]
    scales = [case.tensor(f"in_A{i}") for i in range(count)]
    targets = [case.tensor(f"in_t{i}") for i in range(count)]
    settings = {f"p{i}": bertadam_group(case, lr) for i, lr in enumerate(case.cfg("lrs"))}
    component = settings["p0"].optimizer
    groups = [
        {"params": [p], "lr": settings[name].lr, "name": name}
        for p, name in zip(parameters, settings, strict=True)
    ]
    optimizer = component.entry.target(groups, groups[0]["lr"], component.config)
    optimization = Optimization([optimizer], settings)
    losses = []
    visited = [[p.detach().clone() for p in parameters]]
    for step in range(case.cfg("steps")):
        optimization.set_rates(Progress(step=step, total_steps=case.cfg("t_total")))
        terms = zip(scales, parameters, targets, strict=True)
        loss = torch.stack([(0.5 * a * (p - t) ** 2).sum() for a, p, t in terms]).sum()
        loss.backward()
        optimization.step()
        losses.append(loss.item())
        visited.append([p.detach().clone() for p in parameters])
    case.close("out_loss", losses)
    for i in range(count):
        case.close(f"out_p{i}_traj", torch.stack([row[i] for row in visited]))


@adapter("split")
def split(case: Case) -> None:
    """Row numbers of the permutation split; the labels of the rows play no part in it."""
    config = SplitConfig(
        rule="permutation",
        seed=case.cfg("seed"),
        query=case.cfg("query_num"),
        train=case.cfg("train_num"),
    )
    manifest = make_split(config, np.ones((int(case.array("in_n")), 1), np.float32))
    case.equal("out_query", manifest.query)
    case.equal("out_train", manifest.train)
    case.equal("out_retrieval", manifest.database)
