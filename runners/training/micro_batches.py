"""A training step in parts, for a batch that does not fit into memory, with the batch's loss.

Losses of this field compare the rows of a batch with one another, so halving the batch would change
the loss, and adding up gradients of halves would leave out all pairs across them. Instead (Gao et
al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Peak Memory Usage", RepL4NLP
2021) with parts p of the batch x and outputs h:

    h_p = f(x_p) without a graph;   L(h_1..h_P) as ever;   g_p = dL/dh_p;   f(x_p) again with a
    graph, and backwards from g_p:   dL/dw = sum_p (dh_p/dw)^T g_p

which is the gradient of the whole batch, for a second forward pass. Dropout draws the same in both
passes (but other numbers than for a batch in one piece). Batch statistics (BatchNorm) are those of
a part, as under several processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from common.batch import Batch, Features
from common.seeding import rng_state, set_rng_state
from models.base import Outputs, Progress, Terms
from runners.training.module import TrainingModule


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory of the GPU or of the CPU did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def rows_of(batch: Batch, start: int, stop: int) -> Batch:
    """Return rows ``start`` to ``stop`` of a batch, in all its tensors."""

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[start:stop]
        if isinstance(value, Features):
            return Features(*(cut(part) for part in value))
        if isinstance(value, Batch):
            return rows_of(value, start, stop)
        if isinstance(value, dict):
            return {key: cut(part) for key, part in value.items()}
        return value

    return Batch(**{f.name: cut(getattr(batch, f.name)) for f in dataclasses.fields(batch)})


def step_in_parts(
    module: TrainingModule, batch: Batch, progress: Progress, rows: int, *,
    backward: Callable[[Tensor], None], autocast: Callable[[], Any] = contextlib.nullcontext,
    check: Callable[[Terms, Progress], None] = lambda terms, progress: None,
) -> Terms:  # fmt: skip
    """Add the gradient of a batch with at most ``rows`` rows in the model at a time.

    On one process; ``backward`` gets the total of the terms, which it may scale, ``check`` the
    terms before; ``autocast`` is the context of the model's precision.
    """
    parts = [rows_of(batch, i, min(i + rows, len(batch))) for i in range(0, len(batch), rows)]
    states, outputs = [], []
    buffers = {name: buffer.clone() for name, buffer in module.model.named_buffers()}
    with torch.no_grad():
        for part in parts:
            states.append(rng_state())
            with autocast():
                outputs.append(module.outputs(part))
        for name, buffer in module.model.named_buffers():  # the second pass updates them
            buffer.copy_(buffers[name])
    joined = {name: torch.cat([o[name] for o in outputs]) for name in outputs[0].keys()}  # noqa: SIM118
    for value in joined.values():
        value.requires_grad_(value.is_floating_point())
    with autocast():
        terms = module.terms(Outputs(**joined), batch, progress)
    check(terms, progress)
    backward(terms.total())
    end = rng_state()
    for number, part in enumerate(parts):
        set_rng_state(states[number])
        with autocast():
            again = module.outputs(part)
        gradients = {
            name: value.grad[number * rows : number * rows + len(part)]
            for name, value in joined.items()
            if value.grad is not None and again[name].requires_grad
        }
        if gradients:
            values = [again[name] for name in gradients]
            torch.autograd.backward(values, list(gradients.values()))
    set_rng_state(end)
    return terms
