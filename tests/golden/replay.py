"""Whole training runs of a few steps, replayed: backbone, heads, loss, optimisers, schedules.

The recorded weights are copied into our modules, the recorded batches are fed in their order
through :class:`runners.training.module.TrainingModule` and
:class:`runners.training.optimization.Optimization`, and everything along the way is compared.
``logit_scale`` of the recorded CLIP is no parameter of ours: it takes no gradient and no hashing
method uses it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.batch import Batch
from common.codes import sign
from common.config.run_config import Component, OptimGroup
from common.optimizers import BertAdamConfig, RMSpropConfig, SGDConfig
from common.registry import OPTIMIZERS, SCHEDULERS
from common.schedules import WarmupConfig
from models.backbones.base import Backbone
from models.base import HashLoss, HashModel, Outputs, Problem, Progress, Terms
from runners.training.module import TrainingModule
from runners.training.optimization import Optimization
from tests.golden.harness import Case, GoldenError, adapter
from tests.golden.openai_clip import openai_name, openai_sizes, tiny_clip

RTOL_LOSS = 1e-8  # of a float64 implementation, as are the next two
RTOL_RATE = 1e-12
ATOL = 1e-7
FLOAT32_LOSS = 1e-4  # of a float32 implementation over the first steps
FLOAT32_STEPS = 6  # unless a method amplifies rounding faster
FLOAT32_NOISE = 20  # times the recording's own float32 noise, over all steps

NOT_COMPARED = {"out_final_*logit_scale": "our CLIP has no such parameter; it is never trained"}
NOT_READ = {
    "cfg_method": "a note in words",
    "cfg_seed": "weights and batches are recorded, nothing is drawn",
    "cfg_n_dropout_modules_zeroed": "a note on how cfg_dropout was reached",
}


@dataclasses.dataclass(kw_only=True)
class Setup:
    """What a method brings to a trajectory.

    Attributes:
        model, loss: ours; :func:`replay` sets their dtype and loads the weights.
        backbone: prefix of the CLIP in the recorded names.
        names: recorded prefix → ours, below a :class:`TrainingModule`, for everything else.
        columns: recorded prefix of a parameter group → our group, in the order of ``out_lr``.
        optim: our group → settings.
        terms: our terms and the model's outputs → values of ``out_term_<name>``.
        real: batch and modality → what ``out_real_<modality>`` recorded.
        further: name → batch and modality → what ``out_<name>_<modality>`` recorded.
        final: name → what ``out_<name>`` recorded after training, in evaluation mode.
        absent: endings of recorded parameters that we have not, since nothing trains them.
        constants: beginnings of our names, below a :class:`TrainingModule`, that no weight was
            recorded for: the method sets them itself.
        float32_steps: first steps that float32 determines to :data:`FLOAT32_LOSS`.
        aliases: name in ``out_traj_<name>`` → recorded name, where a file shortens it.
        extend: adds to a batch of training rows what the method reads beside them.
        after_epoch: does what the reference does after an epoch, given its number from 0.
    """

    model: HashModel
    loss: HashLoss
    backbone: str = "backbone."
    names: Mapping[str, str]
    columns: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {"backbone.": "backbone", "hash.": "head"}
    )
    optim: Mapping[str, OptimGroup]
    terms: Callable[[Terms, Outputs], Mapping[str, Tensor]]
    real: Callable[[Batch, str], Tensor]
    further: Mapping[str, Callable[[Batch, str], Tensor]] = dataclasses.field(default_factory=dict)
    final: Mapping[str, Callable[[], Tensor]] = dataclasses.field(default_factory=dict)
    absent: tuple[str, ...] = (".logit_scale",)
    constants: tuple[str, ...] = ()
    float32_steps: int = FLOAT32_STEPS
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    extend: Callable[[Batch], Batch] = lambda batch: batch
    after_epoch: Callable[[int], None] = lambda epoch: None


Build = Callable[[Case, torch.dtype], Setup]


@dataclasses.dataclass
class Record:
    """What was seen along the way: one entry per step."""

    losses: list[float] = dataclasses.field(default_factory=list)
    terms: list[dict[str, float]] = dataclasses.field(default_factory=list)
    rates: list[list[float]] = dataclasses.field(default_factory=list)
    norms: list[list[float]] = dataclasses.field(default_factory=list)
    traces: list[dict[str, NDArray[Any]]] = dataclasses.field(default_factory=list)


def clip_of(case: Case, prefix: str, dtype: torch.dtype, **options: Any) -> Backbone:
    """Return the recorded CLIP; its sizes must be those that the file states.

    ``options`` are those of :func:`tests.golden.openai_clip.tiny_clip`.
    """
    state = case.weights(prefix, dtype)
    sizes = openai_sizes(state)
    case.agree("embed_dim", sizes["embed_dim"])
    case.agree("layers", sizes["vision_cfg"]["layers"])
    case.agree("layers", sizes["text_cfg"]["layers"])
    return tiny_clip(state, **options)  # one head per 64 features, as recorded


def problem_of(case: Case) -> Problem:
    """Return the task of a trajectory."""
    classes = case.cfg("classes")
    label = case.tensor("in_labels")
    if label.shape[1] != classes:
        raise GoldenError(f"{case.source}: cfg_classes is {classes}, the labels say otherwise")
    return Problem(
        case.cfg("bits"), classes, n_train=len(label), multi_label=True, train_labels=label
    )


def bertadam_group(case: Case, lr: float, warmup: str = "warmup") -> OptimGroup:
    """Return the settings that a file describes by ``cfg_b1``, ``cfg_schedule`` and the like.

    A ``cfg_t_total`` of -1 means a constant rate, whatever the schedule.
    """
    config = BertAdamConfig(
        beta1=case.cfg("b1"),
        beta2=case.cfg("b2"),
        eps=case.cfg("e"),
        weight_decay=case.cfg("weight_decay"),
        max_grad_norm=case.cfg("max_grad_norm"),
    )
    name, share = case.cfg("schedule"), case.cfg(warmup)
    if case.cfg("t_total") == -1:
        schedule = Component(SCHEDULERS.get("constant"), None)
    else:
        schedule = Component(SCHEDULERS.get(name), WarmupConfig(share))
    return OptimGroup(Component(OPTIMIZERS.get("bertadam"), config), lr, schedule)


def proxy_group(case: Case) -> OptimGroup:
    """Return the recorded optimiser of proxies, an SGD of their own at a constant rate."""
    sgd = SGDConfig(
        momentum=case.cfg("proxy_momentum"), weight_decay=case.cfg("proxy_weight_decay")
    )
    return OptimGroup(
        Component(OPTIMIZERS.get(case.cfg("proxy_optimizer").lower()), sgd),
        case.cfg("proxy_lr"),
        Component(SCHEDULERS.get("constant"), None),
    )


def clip_groups(case: Case) -> dict[str, OptimGroup]:
    """Return BertAdam's settings for the backbone and for the head."""
    case.agree("optimizer", "BertAdam")
    return {
        name: bertadam_group(case, case.cfg(f"lr_{name}"), "warmup_proportion")
        for name in ("backbone", "head")
    }


def rmsprop_groups(case: Case, schedule: str, config: Any) -> dict[str, OptimGroup]:
    """Return RMSprop's settings for backbone and head alike, under a schedule."""
    rmsprop = RMSpropConfig(
        alpha=case.cfg("rms_alpha"), eps=case.cfg("rms_eps"), weight_decay=case.cfg("weight_decay")
    )
    group = OptimGroup(
        Component(OPTIMIZERS.get("rmsprop"), rmsprop),
        case.cfg("lr"),
        Component(SCHEDULERS.get(schedule), config),
    )
    return {"backbone": group, "head": group}


def rows_batch(case: Case, rows: NDArray[np.int64], dtype: torch.dtype) -> Batch:
    """Return the training rows ``rows``, with texts and a text mask if such were recorded."""
    index = torch.as_tensor(rows)
    captioned, masked = "in_text" in case, "in_key_padding_mask" in case
    return Batch(
        label=case.tensor("in_labels", dtype)[index],
        index=index,
        image=case.tensor("in_image", dtype)[index],
        text=case.tensor("in_text")[index] if captioned else None,
        text_mask=case.tensor("in_key_padding_mask")[index] if masked else None,
    )


def by_recorded_name(setup: Setup, module: TrainingModule) -> dict[str, Tensor]:
    """Return our parameters and buffers under the reference's names."""
    found = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if name.startswith(setup.constants):
            continue
        if name.startswith("model.backbone."):
            key = setup.backbone + openai_name(name.removeprefix("model.backbone."))
        else:
            theirs, ours = next((t, o) for t, o in setup.names.items() if name.startswith(o))
            key = theirs + name.removeprefix(ours)
        found[key] = tensor
    return found


def load_weights(case: Case, named: Mapping[str, Tensor], absent: tuple[str, ...]) -> None:
    """Copy every recorded weight into ours; none may be left over on either side."""
    weights = case.weights("w_")
    theirs = {name for name in weights if not name.endswith(absent)}
    if theirs != set(named):
        raise GoldenError(f"{case.source}: without counterpart: {sorted(theirs ^ set(named))}")
    with torch.no_grad():
        for name, tensor in named.items():
            tensor.copy_(weights[name])


def replay(case: Case, build: Build, dtype: torch.dtype) -> tuple[Record, Setup, dict[str, Tensor]]:
    """Train as recorded; return what happened, the method, and its tensors by recorded name."""
    setup = build(case, dtype)
    module = TrainingModule(setup.model.to(dtype), setup.loss.to(dtype))
    named = by_recorded_name(setup, module)
    load_weights(case, named, setup.absent)
    named |= {alias: named[name] for alias, name in setup.aliases.items()}
    optimization = Optimization.build(setup.optim, setup.model, setup.loss)
    epochs, steps = case.cfg("epochs"), case.cfg("steps")
    total = case.cfg("t_total") if "cfg_t_total" in case else steps
    record = Record()
    outputs: list[Outputs] = []
    hook = setup.model.register_forward_hook(lambda model, given, made: outputs.append(made))
    module.train()
    for step in range(steps):
        progress = Progress(step * epochs // steps, step, epochs, total)
        rows = case.array("in_indices")[step]
        rows = rows[rows >= 0]
        if len(rows) != case.array("in_batch_sizes")[step]:
            raise GoldenError(f"{case.source}: step {step} has {len(rows)} rows")
        rates = optimization.set_rates(progress)
        terms = module(setup.extend(rows_batch(case, rows, dtype)), progress)
        total_loss = terms.total()
        total_loss.backward()
        named_terms = setup.terms(terms, outputs.pop())
        record.losses.append(total_loss.item())
        record.terms.append({name: value.item() for name, value in named_terms.items()})
        record.rates.append([rates[group] for group in setup.columns.values()])
        record.norms.append([gradient_norm(named, prefix) for prefix in setup.columns])
        optimization.step()
        record.traces.append(traces(case, named))
        if (step + 1) * epochs % steps == 0:
            setup.after_epoch(progress.epoch)
    hook.remove()
    return record, setup, named


def gradient_norm(named: Mapping[str, Tensor], prefix: str) -> float:
    """Return the 2-norm of all gradients of the parameters under ``prefix``."""
    gradients = [t.grad for name, t in named.items() if name.startswith(prefix)]
    return float(torch.stack([g.norm() for g in gradients if g is not None]).norm())


def traces(case: Case, named: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Return the first entries of every parameter that the file follows."""
    found = {}
    for key in case.keys("out_traj_*"):
        values = named[key.removeprefix("out_traj_")].detach().reshape(-1)
        found[key] = values[: case.arrays[key].shape[1]].numpy().copy()
    return found


def compare_trajectory(case: Case, build: Build) -> None:
    """Replay in the recorded precision and compare all of it, then the losses in float32."""
    if "cfg_dropout" in case:
        case.agree("dropout", 0.0)
    case.agree("batch", case.array("in_indices").shape[1])
    record, setup, named = replay(case, build, getattr(torch, case.cfg("dtype")))
    case.close("out_loss", record.losses, RTOL_LOSS)
    for key in case.keys("out_term_*"):
        name = key.removeprefix("out_term_")
        case.close(key, [terms[name] for terms in record.terms], RTOL_LOSS)
    rates = np.array(record.rates)
    one_group = case.array("out_lr").ndim == 1
    case.close("out_lr", rates[:, 0] if one_group else rates, RTOL_RATE)
    if "out_grad_norm" in case:
        case.close("out_grad_norm", record.norms)
    for key in case.keys("out_traj_*"):
        case.close(key, np.stack([step[key] for step in record.traces]), 0.0, ATOL)
    compare_final(case, named, setup.absent)
    compare_outputs(case, setup)
    compare_float32(case, replay(case, build, torch.float32)[0].losses, setup.float32_steps)


def trajectory(
    name: str,
    *,
    not_compared: Mapping[str, str] | None = None,
    not_read: Mapping[str, str] | None = None,
) -> Callable[[Build], Build]:
    """Return a decorator for a function that builds a method: the adapter of its training run.

    Everything is compared but ``logit_scale`` and what ``not_compared`` names, with reasons.
    """

    def enter(build: Build) -> Build:
        def compare(case: Case) -> None:
            compare_trajectory(case, build)

        compare.__doc__ = build.__doc__
        adapter(
            name,
            not_compared={**NOT_COMPARED, **(not_compared or {})},
            not_read={**NOT_READ, **(not_read or {})},
        )(compare)
        return build

    return enter


def compare_final(case: Case, named: Mapping[str, Tensor], absent: tuple[str, ...]) -> None:
    """Compare parameters after the last step, in part or whole, and the figures of all of them."""
    for key in case.keys("out_final_*"):
        name = key.removeprefix("out_final_")
        if name == "stats" or name not in named:
            continue
        ours, shape = named[name].detach(), case.arrays[key].shape
        part = ours.reshape(-1) if len(shape) == 1 else ours
        case.close(key, part[: shape[0]] if shape else part, 0.0, ATOL)
    if "out_final_stats" not in case:
        return
    names = case.cfg("param_names")
    recorded = np.array(case.array("out_final_stats"))
    ours = recorded.copy()
    for row, name in enumerate(names):
        if name.endswith(absent):
            continue  # its row alone stays as recorded: no parameter of ours
        tensor = named[name].detach()
        ours[row] = tensor.sum().item(), tensor.norm().item()
    case.close("out_final_stats", ours, 1e-8, ATOL)


def compare_outputs(case: Case, setup: Setup) -> None:
    """Compare outputs and codes of all rows after training, in evaluation mode."""
    dtype = getattr(torch, case.cfg("dtype"))
    rows = np.arange(len(case.array("in_labels")))
    batch = rows_batch(case, rows, dtype)
    setup.model.eval()
    with torch.no_grad():
        for modality in setup.model.modalities:
            case.close(f"out_real_{modality}", setup.real(batch, modality), 0.0, ATOL)
            case.equal(f"out_codes_{modality}", sign(setup.model.encode(batch, modality)))
            for name, function in setup.further.items():
                case.close(f"out_{name}_{modality}", function(batch, modality), 0.0, ATOL)
        for name, value in setup.final.items():
            case.close(f"out_{name}", value(), 0.0, ATOL)


def compare_float32(case: Case, losses: list[float], steps: int) -> None:
    """Compare the losses in float32 as far as float32 determines them.

    Two implementations in float32 drift apart; the recording's own distance to its float64 run
    says by how much, and the first ``steps`` are held to :data:`FLOAT32_LOSS`.
    """
    exact, recorded = case.array("out_loss"), case.array("out_float32_loss")
    noise = float(np.abs(recorded / exact - 1).max())
    case.close("out_float32_loss", losses, max(FLOAT32_LOSS, FLOAT32_NOISE * noise), 0.0)
    first = [*losses[:steps], *recorded[steps:]]
    case.close("out_float32_loss", first, FLOAT32_LOSS, 0.0)
