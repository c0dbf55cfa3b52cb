"""A training step of every cross-modal method over a bare CLIP forward and backward.

python tests/bench/bench_training_step.py                 # ViT-B/32, batch 32, float32: minutes
python tests/bench/bench_training_step.py --methods dsph mith --batch 8

The encoder is OpenAI's ViT-B/32 architecture from random weights, texts of 32 tokens, nothing
frozen. The bare step encodes pictures and texts and goes backward from the sum of the features,
once with open_clip's blocks as they are and once with ours (models/backbones/clip_attention.py); a
method's step is the latter plus its heads and loss, without the optimiser (which is the same for
all). The share outside matrix products is of processor time, by the profiler; memory is the peak
above what was held before the step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler's own remarks

import torch  # noqa: E402

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from bench_retrieval import Memory  # noqa: E402

from common.batch import Batch  # noqa: E402
from common.config.run_config import compose  # noqa: E402
from common.problem import Problem  # noqa: E402
from models.backbones import open_clip as open_clip_backbones  # noqa: E402
from models.backbones.base import Backbone  # noqa: E402
from models.backbones.build import build_backbone  # noqa: E402
from models.backbones.open_clip_towers import with_lean_blocks  # noqa: E402
from models.base import Progress  # noqa: E402
from runners.training.module import TrainingModule  # noqa: E402

POOLED = ("baseline", "dcmht", "dcmht_attention", "dsph", "dnph", "twdh")
TOKENS = ("mith", "dimch", "umoed", "vtph")
PRODUCTS = (
    "aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::convolution",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
)  # fmt: skip
ROWS, CLASSES = 10_000, 80


def clip(blocks: str = "ours") -> Backbone:
    """Return ViT-B/32 from random weights, with our blocks or with open_clip's."""
    torch.manual_seed(0)
    open_clip_backbones.with_lean_blocks = with_lean_blocks if blocks == "ours" else lambda n: n
    config = compose(["method=dsph", "dataset=creatures_scenes", "backbone=clip_vit_b32",
                      "backbone.weights=random"])  # fmt: skip
    return build_backbone("open_clip", config.backbone.config, ("image", "text")).train()


def make_batch(backbone: Backbone, size: int) -> tuple[Batch, torch.Tensor]:
    """Return pictures, texts of 5 to 28 words and labels, and the labels of all training rows."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(size, 3, 224, 224, generator=generator)
    words = torch.randint(5, 29, (size,), generator=generator).tolist()
    text, mask = backbone.tokenize([" ".join(["dog"] * count) for count in words])
    label = (torch.rand(ROWS, CLASSES, generator=generator) < 0.04).float()
    label[torch.arange(ROWS), torch.arange(ROWS) % CLASSES] = 1
    index = torch.randperm(ROWS, generator=generator)[:size]
    return Batch(
        image=image, text=text, text_mask=mask, label=label[index], index=index
    ), label  # fmt: skip


def step_of(method: str, backbone: Backbone, batch: Batch, labels: torch.Tensor, bits: int):  # noqa: ANN201
    """Return one step of a method with the settings of its YAML."""
    config = compose([f"method={method}", "dataset=creatures_scenes", f"bits={bits}"])
    generator = torch.Generator().manual_seed(0)
    problem = Problem(
        bits=bits, n_classes=CLASSES, n_train=ROWS, multi_label=True, train_labels=labels,
        generator=generator,
    )  # fmt: skip
    assert config.loss is not None
    module = TrainingModule(
        config.model.entry.target(config.model.config, problem, backbone),
        config.loss.entry.target(config.loss.config, problem),
    ).train()

    def step() -> None:
        module.zero_grad(set_to_none=True)
        module(batch, Progress()).total().backward()

    return step


def bare_step(backbone: Backbone, batch: Batch) -> Callable[[], None]:
    """Return encoding and backward alone, from the sum of the pooled features."""

    def step() -> None:
        backbone.zero_grad(set_to_none=True)
        total = sum(backbone(batch, m).pooled.sum() for m in ("image", "text"))
        total.backward()  # type: ignore[union-attr]

    return step


def measure(step: Callable[[], None]) -> tuple[float, float]:
    """Return seconds and the peak MiB of one step after a warm-up, which took the first memory."""
    step()
    memory = Memory()
    memory.start()
    start = time.perf_counter()
    step()
    seconds = time.perf_counter() - start
    memory.done.set()
    memory.join()
    return seconds, (memory.peak - memory.before) / 2**20


def outside_products(step: Callable[[], None]) -> float:
    """Return the share of processor time outside matrix products and attention."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    events = profile.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    inside = sum(e.self_cpu_time_total for e in events if any(p in e.key for p in (
        *PRODUCTS, "mkldnn_convolution", "convolution_backward", "flash_attention"))
    )  # fmt: skip
    return 1 - inside / total


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--methods", nargs="+", default=[*POOLED, *TOKENS])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    usual, backbone = clip("open_clip's"), clip()
    batch, labels = make_batch(backbone, options.batch)
    threads = torch.get_num_threads()
    print(f"ViT-B/32, batch {options.batch}, {options.bits} bits, {threads} threads\n")
    print("open_clip: its bare step, in s; ours: with our blocks; each with the ratio to it\n")
    print(
        "| method | step s | open_clip s | ratio | ours s | ratio | peak MiB | outside products |"
    )
    print("|---|---|---|---|---|---|---|---|")
    plain, lean = bare_step(usual, batch), bare_step(backbone, batch)
    for method in options.methods:
        step = step_of(method, backbone, batch, labels, options.bits)
        rounds = [[measure(s) for s in (plain, lean, step)] for _ in range(options.rounds)]
        ratios = [statistics.median(r[2][0] / r[i][0] for r in rounds) for i in (0, 1)]
        seconds = [statistics.median(r[i][0] for r in rounds) for i in range(3)]
        peak = statistics.median(r[2][1] for r in rounds)
        print(
            f"| {method} | {seconds[2]:.2f} | {seconds[0]:.2f} | {ratios[0]:.2f} | "
            f"{seconds[1]:.2f} | {ratios[1]:.2f} | {peak:,.0f} | "
            f"{100 * outside_products(step):.0f} % |", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
