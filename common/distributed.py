"""Sharing rows among processes and gathering them; no-ops without ``torch.distributed``."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor


def rank_and_world() -> tuple[int, int]:
    """Return (rank of this process, number of processes)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def local_share(rows: int) -> slice:
    """Return the rows of this process: disjoint, contiguous, in rank order, sizes within one."""
    rank, world = rank_and_world()
    return slice(rows * rank // world, rows * (rank + 1) // world)


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows [n_r,...] of all processes, in rank order [Σn_r,...], with gradient.

    Processes may have different numbers of rows, or none (the last batch of an epoch). With NCCL,
    tensors on the CPU are moved to the GPU and back.
    """
    _, world = rank_and_world()
    if world == 1:
        return rows
    device = rows.device
    if torch.distributed.get_backend() == "nccl":
        rows = rows.cuda()
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(world)]
    torch.distributed.all_gather(counts, count)
    lengths = [int(c) for c in counts]
    padding = rows.new_zeros(max(lengths) - len(rows), *rows.shape[1:])
    padded = torch.cat([rows, padding])
    parts = _Gathered.apply(padded).chunk(world) if max(lengths) else [padded] * world
    gathered = [part[:length] for part, length in zip(parts, lengths, strict=True)]
    return torch.cat(gathered).to(device)


class _Gathered(torch.autograd.Function):
    """Rows of all processes; the gradient of a process's rows is the sum over all processes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        torch.distributed.all_reduce(total)
        world = torch.distributed.get_world_size()
        return total.chunk(world)[torch.distributed.get_rank()]
