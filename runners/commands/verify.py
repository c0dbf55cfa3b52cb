"""``main.py verify``: compare a dataset with what its protocol states."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.config.run_config import compose
from runners.commands.arguments import DATASET_HELP, add_settings, dataset_words
from utils.terminal import Piece, print_grid, say

if TYPE_CHECKING:
    from dataset.preparation.checks import Finding


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``verify``."""
    parser.add_argument("dataset", metavar="DATASET", help=DATASET_HELP)
    add_settings(parser, "dataset.split.name=mith")
    parser.add_argument("--root", metavar="DIR", help="its folder")
    parser.add_argument(
        "--quick", action="store_true", help="open no picture, read no official file"
    )


def run(options: argparse.Namespace) -> int:
    """Print the findings as a table, and those that differ once more below it: exit code 1."""
    findings = verify(options.dataset, options.root, options.settings, options.quick)
    marks: dict[bool | None, str | Piece] = {True: "ok", False: ("differs", "bold red"), None: ""}
    rows = [(marks[f.ok], f.check, f.value, f.expected) for f in findings]
    print_grid(("", "check", "found", "expected"), rows, title=options.dataset)
    wrong = [finding for finding in findings if finding.ok is False]
    for finding in wrong:
        say(f"differs: {finding.check}: {finding.value}, expected {finding.expected}")
    if not wrong:
        say("All is as stated.")
    return 1 if wrong else 0


def verify(name: str, root: str | None, settings: Sequence[str], quick: bool) -> list[Finding]:
    """Check a dataset and return the findings.

    Raises:
        UserError: an unknown dataset, or one that cannot even be opened.
    """
    from dataset.preparation.checks import verify_dataset
    from dataset.preparation.prepared_dataset import PreparedConfig
    from dataset.preparation.verify import verify_prepared

    composed = compose(dataset_words(name, root, settings), received="skip")
    config = composed.dataset.config
    if isinstance(config, PreparedConfig):
        return verify_prepared(config, quick)
    return verify_dataset(composed.dataset.entry.target(config, composed.dataset_name), quick)
