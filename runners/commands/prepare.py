"""``main.py prepare``: make a dataset ready from its official files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from common.config.run_config import compose
from common.registry import DATASETS
from runners.commands.arguments import add_settings, dataset_words
from utils.errors import UserError
from utils.terminal import say


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``prepare``."""
    parser.add_argument("dataset", metavar="DATASET", help="coco, flickr25k, nuswide, …")
    add_settings(parser, "dataset.split.lists=DIR")
    parser.add_argument("--root", metavar="DIR", help="folder of its archives, or to put them in")
    parser.add_argument(
        "--images", metavar="DIR", help="where the pictures of .mat files lie, if elsewhere"
    )
    parser.add_argument("--download", action="store_true", help="fetch what its host offers")


def run(options: argparse.Namespace) -> None:
    """Prepare a dataset; the last line printed is the path of its index.

    Raises:
        UserError: a dataset without official files, or whatever its preparation refuses.
    """
    from dataset.preparation.index import index_file
    from dataset.preparation.prepare import prepare, splits_file
    from dataset.preparation.prepared_dataset import PreparedConfig

    name = options.dataset
    if not isinstance(_config(name, None, ()), PreparedConfig):
        known = [n for n in DATASETS.names() if issubclass(DATASETS.get(n).config, PreparedConfig)]
        raise UserError(
            f"Dataset '{name}' has no official files to prepare; it is ready as it is. With "
            f"official files: {', '.join(known)}."
        )
    config = _config(name, options.root, options.settings)
    assert isinstance(config, PreparedConfig)
    if not config.root:
        raise UserError("No folder is given; say where the dataset is to lie with --root DIR.")
    source, folder = config.source, Path(config.root).expanduser()
    images = None if options.images is None else Path(options.images)
    index = prepare(source, folder, options.download, config.lists, images)
    rows = index.rows
    lines = [
        f"{source.title}: {len(rows):,} rows, {len(rows.class_names)} classes, "
        f"{index.layout} layout, content {index.content}"
    ]
    splits = splits_file(folder, source.name)
    for protocol, split in json.loads(splits.read_text(encoding="utf-8")).items():
        if "hash" in split:
            counts = ", ".join(f"{part} {n:,}" for part, n in split["counts"].items() if n)
            lines.append(f"  {protocol:14} {split['hash']}  {counts}")
        else:
            lines.append(f"  {protocol:14} not to be had: {split['missing']}")
    say(*lines, splits, index_file(folder, source.name))


def _config(name: str, root: str | None, settings: Sequence[str]) -> object:
    return compose(dataset_words(name, root, settings)).dataset.config
