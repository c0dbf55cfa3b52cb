"""``main.py encode``: write the codes of a folder of pictures, of texts, or of features."""

from __future__ import annotations

import argparse

from common.config.plugins import on_trust
from runners.commands.arguments import (
    DEVICE_HELP,
    FEATURES_HELP,
    add_accept_changed,
    add_plugins,
    plugins_of,
)
from utils.terminal import say


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``encode``."""
    parser.add_argument("run", metavar="RUN_DIR")
    parser.add_argument("--images", metavar="DIR", help="folder of pictures")
    parser.add_argument("--texts", metavar="FILE", help="texts, one a line")
    parser.add_argument("--features", metavar="FILE", help=FEATURES_HELP)
    parser.add_argument("--out", required=True, metavar="FILE", help=".h5 or .npz, with ids")
    parser.add_argument("--device", help=DEVICE_HELP)
    add_plugins(parser)
    add_accept_changed(parser)


def run(options: argparse.Namespace) -> None:
    """Write the codes."""
    from runners.search.search import encode_files

    codes = encode_files(
        options.run, options.images, options.texts, options.out, options.device, options.features,
        plugins=plugins_of(options.settings), received=on_trust(options.trust),
        accept_changed=options.accept_changed,
    )  # fmt: skip
    say(f"{len(codes)} codes of {codes.bits} bits: {options.out}")
