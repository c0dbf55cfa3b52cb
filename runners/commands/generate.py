"""``main.py generate``: captions and pictures by models; the last line printed is their folder."""

from __future__ import annotations

import argparse
import dataclasses

from runners.commands.arguments import DATASET_HELP, add_settings
from runners.generation.options import Options
from utils.terminal import say


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``generate``."""
    parser.add_argument("dataset", metavar="DATASET", help=DATASET_HELP)
    add_settings(parser, "dataset.root=DIR dataset.split.seed=1, as given to train")
    for field in dataclasses.fields(Options):
        if field.metadata:
            parser.add_argument(f"--{field.name.replace('_', '-')}", **field.metadata)


def run(options: argparse.Namespace) -> None:
    """Generate captions and pictures."""
    from runners.generation.generate import generate

    names = (field.name for field in dataclasses.fields(Options))
    for line in generate(Options(**{name: getattr(options, name) for name in names})):
        say(line)
