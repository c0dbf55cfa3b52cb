"""``main.py generate``: options in, a filled folder out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from common.config.layers import config_names
from common.config.run_config import RunConfig, compose
from dataset.base import HashDataset
from runners.generation import pzsh, vtph
from runners.generation.options import Options
from runners.inputs.loading import load_dataset
from utils.errors import unknown_name

log = logging.getLogger("hashing")


class Generation(Protocol):
    """One command's work; everything that can be checked is checked when it is made."""

    def summary(self) -> list[str]:
        """Return what there is to do, line by line."""
        ...

    def run(self) -> None:
        """Make what is missing."""
        ...


def _vtph(options: Options, dataset: HashDataset, config: RunConfig) -> Generation:
    return vtph.Generation(options, dataset, config.data.on_bad_image)


def _pzsh(options: Options, dataset: HashDataset, config: RunConfig) -> Generation:
    return pzsh.Generation(options, dataset, config)


METHODS: dict[str, Callable[[Options, HashDataset, RunConfig], Generation]] = {
    "vtph": _vtph,
    "pzsh": _pzsh,
}


def generate(options: Options) -> list[str]:
    """Do what ``options`` ask for and return lines to print: the folder last, or the dry run.

    Raises:
        UserError: bad options, an unknown dataset or method, or whatever its work refuses.
    """
    options.check()
    options.torch_device()
    if options.method not in METHODS:
        raise unknown_name("method for generate (--method)", options.method, METHODS)
    config = settings_of(options)
    work = METHODS[options.method](options, load_dataset(config), config)
    if options.dry_run:
        return work.summary()
    for line in work.summary():
        log.info("%s", line)
    work.run()
    return [str(options.out)]


def settings_of(options: Options) -> RunConfig:
    """Return the settings that ``train`` would have from the same words; they decide the split."""
    words = [f"dataset={options.dataset.removeprefix('dataset=')}"]
    if options.method in config_names("method"):
        words.append(f"method={options.method}")
    return compose([*words, *options.settings])
