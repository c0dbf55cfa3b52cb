"""``main.py export``: write the codes of a file as an index of FAISS."""

from __future__ import annotations

import argparse

from runners.commands.arguments import CODES_HELP
from utils.terminal import say


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``export``."""
    parser.add_argument("codes", metavar="CODES", help=CODES_HELP)
    parser.add_argument("--faiss", required=True, metavar="FILE", help="FAISS binary index")
    parser.add_argument("--kind", choices=("flat", "ivf", "hnsw"), default="flat")


def run(options: argparse.Namespace) -> None:
    """Write the index."""
    from common.code_files import open_codes
    from common.code_files.faiss_index import build_index, save_index

    source = open_codes(options.codes, labelled=False)
    save_index(build_index(source.packed_codes(), options.kind, source.bits), options.faiss)
    say(f"{source.rows} codes of {source.bits} bits, {options.kind} index: {options.faiss}")
