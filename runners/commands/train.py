"""``main.py train``: train one run and evaluate it; the last line printed is its folder."""

from __future__ import annotations

import argparse
import logging
import os

import yaml

from common.config.plugins import on_trust
from common.config.run_config import compose_layers, top_layers, unchecked
from runners.commands.arguments import TRUST_HELP, add_accept_changed, add_settings
from utils.terminal import say

log = logging.getLogger("hashing")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``train``."""
    add_settings(parser, "method=dcmht dataset=creatures_scenes bits=32 seed=0")
    parser.add_argument("--config", metavar="FILE", help="YAML, e.g. a run's config.yaml")
    parser.add_argument("--trust", action="store_true", help=TRUST_HELP)
    parser.add_argument("--print-config", action="store_true", help="show the settings only")
    add_accept_changed(parser)


def run(options: argparse.Namespace) -> None:
    """Train one run, or print its settings."""
    top = top_layers(options.settings, options.config)
    if options.print_config:
        settings = None if options.trust else unchecked(top)
        if settings is None:
            settings = dict(compose_layers(top, on_trust(options.trust)).resolved)
        else:
            log.warning("the settings are shown unchecked: the run's plugins are not run")
        say(*yaml.safe_dump(settings, sort_keys=False).rstrip("\n").split("\n"))
        return
    config = compose_layers(top, on_trust(options.trust))
    from runners.base import run_config
    from runners.results.show import show_leaderboard

    folder = run_config(config, accept_changed=options.accept_changed)
    if os.environ.get("RANK", "0") != "0":
        return  # under torchrun the first process reports; its files may not be complete yet
    show_leaderboard([folder])
    say(folder.path)
