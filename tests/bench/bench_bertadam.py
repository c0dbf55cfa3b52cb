"""BertAdam with fused list operations against one tensor after the other.

python tests/bench/bench_bertadam.py     # DCMHT's select head at 64 bits: 260 small tensors
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from common.optimizers import BertAdam  # noqa: E402

SHAPES = [(128, 512), (128,)] * 2 + [(2, 128), (2,)] * 128


def parameters() -> list[torch.nn.Parameter]:
    """Return the tensors of two select heads with a gradient each."""
    torch.manual_seed(0)
    tensors = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    for tensor in tensors:
        tensor.grad = torch.randn_like(tensor)
    return tensors


@torch.no_grad()
def plain_step(tensors: list[torch.nn.Parameter], state: dict, lr: float = 1e-3) -> None:
    """Do one step of BertAdam written as its equations."""
    for p in tensors:
        m, v = state.setdefault(p, (torch.zeros_like(p), torch.zeros_like(p)))
        g = p.grad * min(1.0, 1.0 / (p.grad.norm().item() + 1e-6))
        m.mul_(0.9).add_(g, alpha=0.1)
        v.mul_(0.98).addcmul_(g, g, value=0.02)
        p -= lr * (m / (v.sqrt() + 1e-6) + 0.2 * p)


def main(steps: int = 300) -> None:
    """Time both and print the ratio."""
    torch.set_num_threads(1)
    tensors, state = parameters(), {}
    optimizer = BertAdam(tensors, lr=1e-3)
    times = {}
    for name, step in (
        ("lists", optimizer.step),
        ("one by one", lambda: plain_step(tensors, state)),
    ):
        step()
        start = time.perf_counter()
        for _ in range(steps):
            step()
        times[name] = (time.perf_counter() - start) / steps * 1e3
    ratio = times["one by one"] / times["lists"]
    print(f"{times['lists']:.2f} ms against {times['one by one']:.2f} ms a step: {ratio:.1f}×")


if __name__ == "__main__":
    main()
