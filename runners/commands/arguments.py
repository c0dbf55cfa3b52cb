"""Options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from common.config.layers import parse_overrides
from common.config.plugins import named_plugins
from utils.errors import UserError

CODES_HELP = "npz, npy or HDF5 with codes and labels; FILE.h5:query/image for a part of a file"
DATASET_HELP = "a name of `list datasets`, or a YAML"
TRUST_HELP = "run the plugins that the run's config.yaml names; each is shown with its SHA-256"
FEATURES_HELP = "of the run's encoder, as dataset=features reads; FILE:text for those of texts"
DEVICE_HELP = "where to encode; a GPU where there is one if left out"


def add_settings(parser: argparse.ArgumentParser, example: str) -> None:
    """Add ``key=value`` words."""
    parser.add_argument("settings", nargs="*", metavar="key=value", help=f"for example: {example}")


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust`` and the word ``plugins=[...]``, for commands that restore a run's model."""
    words = "Python files of yours that the run needs: plugins=[p.py]"
    parser.add_argument("settings", nargs="*", metavar="plugins=[FILE]", help=words)
    parser.add_argument("--trust", action="store_true", help=TRUST_HELP)


def plugins_of(settings: Sequence[str]) -> list[str]:
    """Return the files of the word ``plugins=[...]``.

    Raises:
        UserError: another word, for a run's settings are what they were.
    """
    for word in settings:
        if word.partition("=")[0] != "plugins":
            raise UserError(
                f"'{word}' is not accepted: the run has its settings; plugins=[FILE] alone may be "
                "given, for a run made with a plugin."
            )
    values = parse_overrides(settings)
    return [plugin.file for plugin in named_plugins(values, "command line")]


def add_accept_changed(parser: argparse.ArgumentParser) -> None:
    """Add ``--accept-changed``."""
    parser.add_argument(
        "--accept-changed",
        action="store_true",
        help="go on although encoder, data or generated inputs are others than the run's; recorded",
    )


def dataset_words(name: str, root: str | None, settings: Sequence[str]) -> list[str]:
    """Return the settings that a dataset's name, ``--root`` and ``key=value`` words stand for."""
    words = [f"dataset={name.removeprefix('dataset=')}"]
    if root is not None:
        words.append(f"dataset.root={root}")
    return [*words, *settings]
