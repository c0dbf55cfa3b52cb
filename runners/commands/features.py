"""``main.py features``: write the features of a dataset by an encoder, for dataset=features."""

from __future__ import annotations

import argparse

from runners.commands.arguments import add_settings
from utils.terminal import say


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``features``."""
    add_settings(parser, "dataset=coco backbone=clip_vit_b32")
    parser.add_argument("--out", required=True, metavar="FILE", help="a new .h5")
    parser.add_argument("--tokens", action="store_true", help="token features, too, as MITH needs")


def run(options: argparse.Namespace) -> None:
    """Write the features; the last line is a command that trains on them."""
    from common.config.run_config import compose
    from runners.inputs.export import export_features

    config = compose(options.settings)
    say(export_features(config, options.out, options.tokens, options.settings))
