"""Options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

CODES_HELP = "npz, npy or HDF5 with codes and labels; FILE.h5:query/image for a part of a file"
DATASET_HELP = "a name of `list datasets`, or a YAML"
FEATURES_HELP = "of the run's encoder, as dataset=features reads; FILE:text for those of texts"
DEVICE_HELP = "where to encode; a GPU where there is one if left out"


def add_settings(parser: argparse.ArgumentParser, example: str) -> None:
    """Add ``key=value`` words."""
    parser.add_argument("settings", nargs="*", metavar="key=value", help=f"for example: {example}")


def dataset_words(name: str, root: str | None, settings: Sequence[str]) -> list[str]:
    """Return the settings that a dataset's name, ``--root`` and ``key=value`` words stand for."""
    words = [f"dataset={name.removeprefix('dataset=')}"]
    if root is not None:
        words.append(f"dataset.root={root}")
    return [*words, *settings]
