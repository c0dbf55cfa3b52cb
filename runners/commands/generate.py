"""``main.py generate``: captions and pictures by models; the last line printed is their folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from runners.commands.arguments import DATASET_HELP, add_settings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``generate``."""
    parser.add_argument("dataset", metavar="DATASET", help=DATASET_HELP)
    add_settings(parser, "dataset.root=DIR dataset.split.seed=1, as given to train")
    parser.add_argument("--method", required=True, metavar="vtph|pzsh", help="whose needs")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to fill; goes on there")
    parser.add_argument(
        "--model",
        metavar="PATH|TAG",
        help="diffusers folder, .safetensors, .ckpt or hub tag; creatures for creatures_zeroshot",
    )
    parser.add_argument("--model-config", metavar="DIR", help="diffusers folder, of a single file")
    parser.add_argument("--captioner", metavar="PATH|TAG", help="BLIP folder or hub tag")
    parser.add_argument("--prompt", help="template: <text>, or <label> <attributes> <caption>")
    parser.add_argument("--negative-prompt", default="", metavar="TEXT")
    parser.add_argument(
        "--count", action="append", default=[], metavar="N|seen=each|unseen=N|CLASS=N"
    )
    parser.add_argument(
        "--features", action="store_true", help="encode the pictures too, with backbone=…"
    )
    parser.add_argument("--condition", choices=("none", "image", "mosaic"), default="none")
    parser.add_argument("--strength", type=float, default=0.8, help="of --condition image, 0..1")
    parser.add_argument("--adapter", metavar="PATH|TAG", help="T2I-Adapter, of --condition mosaic")
    parser.add_argument("--steps", type=int, default=50, help="denoising steps")
    parser.add_argument("--guidance", type=float, default=7.5, help="scale of guidance")
    parser.add_argument("--size", type=int, metavar="PX", help="side; the model's own if left out")
    parser.add_argument("--seed", type=int, default=42, help="of the pictures")
    parser.add_argument("--limit", type=int, metavar="N", help="first N rows; N per class")
    parser.add_argument("--batch-size", type=int, metavar="N", help="halved when memory runs out")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--dtype", choices=("auto", "float32", "float16", "bfloat16"), default="auto"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be made, and stop")


def run(options: argparse.Namespace) -> None:
    """Generate captions and pictures."""
    from runners.generation.generate import generate
    from runners.generation.options import Options

    values = {name: value for name, value in vars(options).items() if name != "command"}
    values.update(
        out=Path(options.out), settings=tuple(options.settings), count=tuple(options.count)
    )
    for line in generate(Options(**values)):
        print(line)
