"""Pairwise Euclidean distances with their gradient: ours against torch.cdist by differences.

python tests/bench/bench_pairwise.py     # 256 rows of 128 values: DCMHT at 64 bits
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from common.pairwise import pairwise_euclidean  # noqa: E402


def differences(a: Tensor, b: Tensor) -> Tensor:
    """Return the distances by torch.cdist without matrix products."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def milliseconds(distance: Callable[[Tensor, Tensor], Tensor], rows: int, width: int) -> float:
    """Return the time of one forward and backward pass."""
    a, b = (torch.rand(rows, width, requires_grad=True) for _ in range(2))
    distance(a, b).pow(2).mean().backward()
    start = time.perf_counter()
    for _ in range(50):
        distance(a, b).pow(2).mean().backward()
    return (time.perf_counter() - start) / 50 * 1e3


def main() -> None:
    """Time both, in turn, and print the ratio."""
    torch.set_num_threads(1)
    for rows, width in ((100, 32), (256, 128)):
        ours = milliseconds(pairwise_euclidean, rows, width)
        theirs = milliseconds(differences, rows, width)
        print(f"{rows} × {width}: {ours:.2f} ms against {theirs:.2f} ms: {theirs / ours:.1f}×")


if __name__ == "__main__":
    main()
