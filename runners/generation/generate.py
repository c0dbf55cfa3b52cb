"""``main.py generate``: options in, a filled folder out."""

from __future__ import annotations

import logging

from common.config.layers import config_names
from common.config.run_config import compose
from runners.generation.base import Generation
from runners.generation.options import Options
from runners.generation.pzsh import PZSHGeneration
from runners.generation.vtph import VTPHGeneration
from runners.inputs.loading import load_dataset
from utils.errors import unknown_name

log = logging.getLogger("hashing")

METHODS: dict[str, type[Generation]] = {"vtph": VTPHGeneration, "pzsh": PZSHGeneration}


def generate(options: Options) -> list[str]:
    """Do what ``options`` ask for and return lines to print: the folder last, or the dry run.

    Raises:
        UserError: bad options, an unknown dataset or method, or whatever its work refuses.
    """
    options.check()
    options.torch_device()
    if options.method not in METHODS:
        raise unknown_name("method for generate (--method)", options.method, METHODS)
    # the settings that ``train`` has with the same words; they decide the split
    words = [f"dataset={options.dataset.removeprefix('dataset=')}"]
    if options.method in config_names("method"):
        words.append(f"method={options.method}")
    config = compose([*words, *options.settings])
    work = METHODS[options.method](options, load_dataset(config), config)
    if options.dry_run:
        return work.summary()
    for line in work.summary():
        log.info("%s", line)
    work.run()
    return [str(options.out)]
