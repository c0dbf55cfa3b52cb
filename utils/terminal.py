"""All that is printed: lines and tables of text. No other module prints (a test).

Texts are shown as they are, see :mod:`utils.shown`: none is read as markup of the library that
draws tables, none reaches the terminal as a control sequence.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, TextIO

from utils.shown import shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Piece = tuple[object, str]
"""A text and its style: a key of ``STYLES``."""

STYLES = {"": "", "bold": "1", "dim": "2", "green": "32", "yellow": "33", "bold red": "1;31"}
"""Style → code of the terminal. The names are those of the library for tables, too."""


def say(*lines: object, style: str = "", file: TextIO | None = None) -> None:
    """Print each argument on a line of its own, to the standard output or to ``file``.

    A list stands for a line of pieces, each with its style. Nothing is folded, so that commands and
    paths can be copied. Needs no library, for one may be missing.
    """
    stream = sys.stdout if file is None else file
    colours = stream.isatty() and "NO_COLOR" not in os.environ
    for line in lines:
        pieces = line if isinstance(line, list) else [(line, style)]
        text = "".join(_styled(shown(text), name if colours else "") for text, name in pieces)
        print(text, file=stream, flush=True)


def print_whatever_the_encoding() -> None:
    """Let signs that the encoding of the output lacks appear as escapes instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say_error(*lines: object) -> None:
    """Print each argument on a line of its own to the error output."""
    say(*lines, file=sys.stderr)


def _styled(text: str, style: str) -> str:
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if STYLES[style] else text


def print_grid(
    head: Sequence[str], rows: Sequence[Sequence[str | Piece]], *, title: str = "",
    right: Collection[int] = (), ends: Collection[int] = (), width: int | None = None,
) -> None:  # fmt: skip
    """Print a table with lines around its cells; long cells are folded.

    Args:
        head: a heading for each column.
        rows: the cells of each row: text, or text and style.
        title: above the table.
        right: numbers of the columns that are right-aligned.
        ends: numbers of the rows below which a line is drawn.
        width: in columns, where the output is no terminal; 80 if left out.
    """
    from rich.table import Table

    table = Table(title=_text(title) if title else None)
    for number, heading in enumerate(head):
        justify = "right" if number in right else "left"
        table.add_column(_text(heading), justify=justify, overflow="fold")  # type: ignore[arg-type]
    for number, row in enumerate(rows):
        table.add_row(*map(_text, row), end_section=number in ends)
    _console(width).print(table)


def _console(width: int | None) -> Console:
    from rich.console import Console

    plain = Console(markup=False, emoji=False, highlight=False)
    if plain.is_terminal or width is None:
        return plain
    return Console(markup=False, emoji=False, highlight=False, width=width)


def _text(cell: str | Piece) -> Text:
    from rich.text import Text

    text, style = cell if isinstance(cell, tuple) else (cell, "")
    return Text(shown(text), style)
