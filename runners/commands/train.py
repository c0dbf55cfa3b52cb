"""``main.py train``: train one run and evaluate it; the last line printed is its folder."""

from __future__ import annotations

import argparse
import os

import yaml

from common.config.run_config import compose
from runners.commands.arguments import add_accept_changed, add_settings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``train``."""
    add_settings(parser, "method=dcmht dataset=creatures_scenes bits=32 seed=0")
    parser.add_argument("--config", metavar="FILE", help="YAML, e.g. a run's config.yaml")
    parser.add_argument("--print-config", action="store_true", help="show the settings only")
    add_accept_changed(parser)


def run(options: argparse.Namespace) -> None:
    """Train one run, or print its settings."""
    config = compose(options.settings, options.config)
    if options.print_config:
        print(yaml.safe_dump(dict(config.resolved), sort_keys=False), end="")
        return
    from runners.base import run_config
    from runners.results.show import show_leaderboard

    folder = run_config(config, accept_changed=options.accept_changed)
    if os.environ.get("RANK", "0") != "0":
        return  # under torchrun the first process reports; its files may not be complete yet
    show_leaderboard([folder])
    print(folder.path)
