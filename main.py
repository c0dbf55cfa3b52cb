"""The command line: ``python main.py COMMAND --help`` says what each command takes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from utils.errors import UserError
from utils.faults import fault, mendable
from utils.logs import log_to_stderr
from utils.shown import shown
from utils.terminal import print_whatever_the_encoding, say_error

COMMANDS = {
    "list": "what is registered",
    "train": "train one method and evaluate it; resumes",
    "evaluate": "measure a finished run's codes again",
    "metrics": "measure codes from anywhere",
    "export": "write codes as an index for serving",
    "encode": "codes of your own pictures, texts or features by a run",
    "features": "write a dataset's features by an encoder",
    "search": "the nearest pictures or texts, by a run",
    "sweep": "run a grid of settings; skips what is done",
    "doctor": "what is here, what is missing; 0: it can start",
    "report": "leaderboard of all finished runs in a folder",
    "prepare": "index a dataset's official files; resumes",
    "verify": "is a dataset what its protocol says? exit code 1: no",
    "generate": "pictures and captions by models; resumes",
    "check": "is this method sound? trains it briefly on toy data",
}
"""Name and summary of each command; ``runners/commands/NAME.py`` has its options and its work."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are a sentence, as all errors are."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where the options are explained; exit code 2."""
        say_error(f"error: {shown(message, 400)}; `{self.prog} --help` says what it takes.")
        sys.exit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 2 the user's to mend, 1 anything else."""
    print_whatever_the_encoding()
    try:
        options = _parse(arguments)
        log_to_stderr()
        return options.command(options) or 0
    except UserError as error:
        say_error(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say_error(
            "interrupted; what was finished and logged is kept, the same command does the rest"
        )
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; nothing to report
        return 0
    except Exception as error:  # noqa: BLE001 - the boundary: nothing ends with a traceback
        to_mend = mendable(error)
        say_error(f"error: {to_mend or fault(error)}")
        return 2 if to_mend else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse; argparse alone would refuse ``key=value`` words that stand behind an option."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = _Parser(
        prog="main.py", description="Deep hashing for image and cross-modal retrieval: a benchmark."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    typed = next((word for word in words if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name == typed:  # the others are not imported
            module = import_module(f"runners.commands.{name}")
            module.add_options(command)
            command.set_defaults(command=module.run)
    options, rest = parser.parse_known_args(words)
    unknown = [word for word in rest if word.startswith("-") or not hasattr(options, "settings")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        options.settings = [*options.settings, *rest]
    return options


if __name__ == "__main__":
    sys.exit(main())
