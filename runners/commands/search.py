"""``main.py search``: print the pictures or texts that are nearest to a query."""

from __future__ import annotations

import argparse
from pathlib import Path

from common.config.plugins import on_trust
from runners.commands.arguments import DEVICE_HELP, add_accept_changed, add_plugins, plugins_of
from utils.terminal import say


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``search``."""
    parser.add_argument("run", metavar="RUN_DIR")
    parser.add_argument("--query", metavar="WORDS|PICTURE", help="what to look for")
    parser.add_argument("--text", metavar="WORDS", help="the same, always words")
    parser.add_argument("--image", metavar="FILE", help="the same, always a picture")
    parser.add_argument("--images", metavar="DIR", help="pictures to search; codes are cached")
    parser.add_argument("--texts", metavar="FILE", help="texts to search; codes are cached")
    parser.add_argument(
        "--codes", metavar="FILE", help="codes to search, of encode; the run's database if left out"
    )
    parser.add_argument("--top", type=int, default=10, metavar="N")
    parser.add_argument("--html", metavar="FILE", help="a page with the pictures found")
    parser.add_argument("--device", help=DEVICE_HELP)
    add_plugins(parser)
    add_accept_changed(parser)


def run(options: argparse.Namespace) -> None:
    """Print the nearest rows; write them as a page where one is named."""
    from runners.search.search import print_result, search_run, write_search_page

    result = search_run(
        options.run, query=options.query, text=options.text, image=options.image,
        images=options.images, texts=options.texts, codes=options.codes, top=options.top,
        device=options.device, plugins=plugins_of(options.settings),
        received=on_trust(options.trust), accept_changed=options.accept_changed,
    )  # fmt: skip
    print_result(result)
    if options.html:
        write_search_page(result, Path(options.html))
        say(options.html)
