"""DIMCH's weighted triplets and diversity: ours against all triples and all differences at once.

python tests/bench/bench_triplet.py     # forward and backward, sets of 8 instances of 16 values

Each measurement is a process of its own; memory is by how much its peak exceeds what it started
with.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from common.pairwise import share_label  # noqa: E402
from models.losses.ranked_triplet import dcg_weight, ranked_triplet  # noqa: E402
from models.losses.set_regularizers import diversity  # noqa: E402

MEMBERS, BITS, CLASSES, MARGIN, SHARPNESS = 8, 16, 24, 0.3, 20.0


def ours(distance: Tensor, members: Tensor, label: Tensor) -> Tensor:
    """Return triplet loss plus diversity."""
    similar, weight = share_label(label, label), dcg_weight(label)
    triplet = ranked_triplet(distance, similar, weight, MARGIN)
    return triplet + diversity(members, SHARPNESS, "flattened")


def plain(distance: Tensor, members: Tensor, label: Tensor) -> Tensor:
    """Return the same by [B,B,B] triples and [BM,BM,K] differences."""
    similar, weight = share_label(label, label), dcg_weight(label)
    mask = similar[:, :, None] * (1 - similar)[:, None]
    triples = mask * (weight[:, :, None] - weight[:, None])
    triples = (triples * (distance[:, :, None] - distance[:, None] + MARGIN)).clamp_min(0)
    triplet = triples.sum() / (triples > 1e-16).sum()
    points = members.flatten(0, 1)
    squared = (points[:, None] - points).pow(2).sum(2)
    pairs = MEMBERS * (MEMBERS - 1) / 2
    return triplet + (-SHARPNESS * squared).exp().triu(1).sum() / pairs


def measure(function: Callable[..., Tensor], rows: int, repeats: int) -> tuple[float, float, float]:
    """Return milliseconds, peak MB and value of one forward and backward pass."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    distance = torch.rand(rows, rows, requires_grad=True)
    members = F.normalize(torch.randn(rows, MEMBERS, BITS), dim=2).requires_grad_()
    label = (torch.rand(rows, CLASSES) < 0.1).float()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value = function(distance, members, label)
    value.backward()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    start = time.perf_counter()
    for _ in range(repeats):
        function(distance, members, label).backward()
    return (time.perf_counter() - start) / repeats * 1e3, peak / 1024, value.item()


def main() -> None:
    """Measure both at several batch sizes and print the ratios."""
    for rows, repeats in ((32, 20), (100, 5), (256, 1)):
        results = []
        for function in (ours, plain):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                results.append(pool.apply(measure, (function, rows, repeats)))
        (time_a, peak_a, value_a), (time_b, peak_b, value_b) = results
        assert abs(value_a - value_b) < 1e-4 * abs(value_b), results
        print(
            f"B = {rows:3}: {time_a:7.1f} ms against {time_b:7.1f} ms: {time_b / time_a:.0f}×; "
            f"peak {peak_a:5.0f} MB against {peak_b:5.0f} MB"
        )


if __name__ == "__main__":
    main()
