"""Semantic hash centres: seconds, least distance, objective, correlation with the similarity.

python tests/bench/bench_centers.py     # 10 to 1,000 classes, 16 to 128 bits, one thread

Beside ours: what is recorded of the released code (the similarity, objective and distance of
shc_centers_a; seconds of two more cases on one core, whose similarities are not kept), the centres
of CSQ (rows of a Hadamard matrix, then random ones), and minimal-distance centres. Similarities
other than the recorded one are made of classes in groups. ``bound`` is the distance that SHC asks.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from models.centers.hash_centers import hadamard_centers  # noqa: E402
from models.centers.semantic import (  # noqa: E402
    center_report,
    gilbert_varshamov,
    mds_centers,
    semantic_centers,
)

RECORDED = Path(__file__).parents[1] / "golden" / "numbers" / "shc_centers_a.npz"
SECONDS = {(40, 16): 170, (12, 24): 49}  # of the released code
SIZES = [(10, 32), (10, 64), (20, 32), (12, 24), (40, 16), (100, 16), (100, 32), (100, 64),
         (100, 128), (196, 64), (555, 64), (1000, 16), (1000, 64), (1000, 128)]  # fmt: skip


def grouped_similarity(classes: int) -> Tensor:
    """Return a similarity [C,C] scaled as stage 1 does, of classes in groups of about ten."""
    generator = torch.Generator().manual_seed(classes)
    groups = torch.randn(max(classes // 10, 2), 16, generator=generator, dtype=torch.float64)
    member = torch.randint(0, len(groups), (classes,), generator=generator)
    features = groups[member] + 0.7 * torch.randn(classes, 16, generator=generator).double()
    like = (features @ features.T / 2).fill_diagonal_(-torch.inf).softmax(1)
    like = (like + like.T) / 2
    like = like - like.mean(1, keepdim=True)
    return (like / like.abs().amax(1, keepdim=True)).fill_diagonal_(1)


def show(classes: int, bits: int, similarity: Tensor, recorded: dict[str, float]) -> None:
    """Print one line for each kind of centres."""
    print(f"\n{classes} classes, {bits} bits, bound {gilbert_varshamov(bits, classes)}")
    if recorded:
        print(
            f"  {'released':9} min {recorded['min']:3.0f}  objective {recorded['obj']:.5f}  "
            f"correlation {recorded['corr']:.3f}"
        )
    elif (classes, bits) in SECONDS:
        print(f"  {'released':9} {SECONDS[classes, bits]:6} s for a similarity of this size")
    for kind in ("hadamard", "mds", "semantic"):
        generator = torch.Generator().manual_seed(0)
        start = time.perf_counter()
        if kind == "semantic":
            centers = semantic_centers(similarity, bits, generator)
        else:
            build = hadamard_centers if kind == "hadamard" else mds_centers
            centers = build(classes, bits, generator)
        seconds = time.perf_counter() - start
        report = center_report(centers, similarity)
        print(
            f"  {kind:9} min {report.min:3.0f}  objective {report.objective:.5f}  "
            f"correlation {report.correlation:.3f}  mean {report.mean:6.2f}  {seconds:6.2f} s"
        )


def main() -> None:
    """Measure all sizes; the first search compiles the sweeps and is not counted."""
    torch.set_num_threads(1)
    semantic_centers(torch.eye(3), 4, torch.Generator(), effort=1e-3)
    with np.load(RECORDED) as case:
        similarity = torch.from_numpy(case["in_S"])
        released = {name: float(case[f"out_shc_{name}"]) for name in ("min", "obj", "corr")}
        show(len(similarity), int(case["cfg_bit"]), similarity, released)
    for classes, bits in SIZES:
        show(classes, bits, grouped_similarity(classes), {})


if __name__ == "__main__":
    main()
