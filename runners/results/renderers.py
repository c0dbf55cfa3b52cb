"""Tables in the terminal, as Markdown and as LaTeX (booktabs); the page is in report/page.py."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runners.results.leaderboard import Row, grouped
from runners.results.significance import Ranking
from runners.results.tables import TERMINAL, Cell, Table, leaderboard, zero_shot

if TYPE_CHECKING:
    from rich.console import Console

# ---- the terminal


def console() -> Console:
    """Return a console as wide as the terminal, 120 columns where there is none."""
    from rich.console import Console

    return Console(width=None if Console().is_terminal else 120)


_WORDS = ("method", "metric", "direction")


def print_tables(rows: Sequence[Row]) -> None:
    """Print one table per dataset and direction, the best of each column bold."""
    output = console()
    for task in grouped(rows, "dataset", "direction").values():
        for table in (leaderboard(task, TERMINAL), *zero_shot(task, TERMINAL)):
            print_table(output, table)
        output.print()


def print_table(output: Console, table: Table) -> None:
    """Print a table and its notes; columns of words are left-aligned, others right-aligned."""
    from rich.markup import escape
    from rich.table import Table as RichTable

    printed = RichTable(title=table.title)
    for heading in table.head:
        printed.add_column(heading, justify="left" if heading in _WORDS else "right")
    for row, following in zip(table.rows, (*table.rows[1:], None), strict=True):
        ends = table.grouped and (following is None or following[0] != row[0])
        texts = (_marked(cell, escape(cell.text), "[bold]{}[/bold]") for cell in row)
        printed.add_row(*texts, end_section=ends)
    output.print(printed)
    for note in table.notes:
        output.print(note, style="dim")


def _marked(cell: Cell, text: str, bold: str, alike: str = "≈") -> str:
    text = f"{text} {alike}" if cell.alike else text
    return bold.format(text) if cell.best else text


def print_ranks(ranks: Ranking) -> None:
    """Print average ranks over datasets, and which are not distinguishable."""
    output = console()
    listed = ", ".join(f"{name} {rank:.2f}" for name, rank in ranks.ranks.items())
    friedman = "" if ranks.p is None else f"; Friedman p {ranks.p:.3g}"
    output.print(f"average rank over {ranks.datasets} datasets: {listed}", highlight=False)
    output.print(
        f"critical difference {ranks.difference:.2f} (Nemenyi, 5 %){friedman}", style="dim"
    )
    for group in ranks.groups:
        output.print(f"≈ {', '.join(group)}", style="dim", highlight=False)


# ---- Markdown


def as_markdown(tables: Sequence[Table]) -> str:
    """Return the tables in GitHub's Markdown."""
    parts = []
    for table in tables:
        lines = [f"### {_markdown(table.title)}", ""]
        lines.append("| " + " | ".join(map(_markdown, table.head)) + " |")
        lines.append("|" + "|".join([" :-- "] + [" --: "] * (len(table.head) - 1)) + "|")
        for row in table.rows:
            cells = (_marked(cell, _markdown(cell.text), "**{}**") for cell in row)
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join([*lines, "", *(_markdown(note) + "  " for note in table.notes)]))
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _markdown(text: str) -> str:
    text = re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(text, quote=False))
    return " ".join(text.split())


# ---- LaTeX

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
    "≈": r"$\approx$", "–": "--", "…": r"\dots{}", "÷": r"$\div$", "<": r"\textless{}",
    ">": r"\textgreater{}",
}  # fmt: skip


def as_latex(tables: Sequence[Table]) -> str:
    """Return the tables as LaTeX, each in a ``table`` of its own; needs the package booktabs."""
    parts = ["% needs \\usepackage{booktabs}"]
    for table in tables:
        columns = "l" + "r" * (len(table.head) - 1)
        caption = ". ".join(_latex(text) for text in (table.title, *table.notes))
        lines = [
            "\\begin{table}", "\\centering", f"\\caption{{{caption}}}",
            f"\\begin{{tabular}}{{{columns}}}", "\\toprule",
            " & ".join(map(_latex, table.head)) + r" \\", "\\midrule",
        ]  # fmt: skip
        for row in table.rows:
            cells = (_marked(c, _latex(c.text), r"\textbf{{{}}}", _LATEX["≈"]) for c in row)
            lines.append(" & ".join(cells) + r" \\")
        parts.append("\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]))
    return "\n\n".join(parts) + "\n"


def _latex(text: str) -> str:
    return " ".join("".join(_LATEX.get(sign, sign) for sign in text).split())
