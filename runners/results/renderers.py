"""Tables in the terminal, as Markdown and as LaTeX (booktabs); the page is in report/page.py."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from runners.results.leaderboard import Row, grouped
from runners.results.significance import Ranking
from runners.results.tables import TERMINAL, Cell, Table, leaderboard, zero_shot
from utils.shown import shown
from utils.terminal import print_grid, say

# ---- the terminal

WIDTH = 120
"""Columns of a table where there is no terminal."""

_WORDS = ("method", "metric", "direction")


def print_tables(rows: Sequence[Row]) -> None:
    """Print one table per dataset and direction, the best of each column bold."""
    for task in grouped(rows, "dataset", "direction").values():
        for table in (leaderboard(task, TERMINAL), *zero_shot(task, TERMINAL)):
            print_table(table)
        say("")


def print_table(table: Table, width: int | None = WIDTH) -> None:
    """Print a table and its notes; columns of words are left-aligned, others right-aligned."""
    following = (*table.rows[1:], None)
    ends = [
        number
        for number, (row, after) in enumerate(zip(table.rows, following, strict=True))
        if table.grouped and (after is None or after[0] != row[0])
    ]
    rows = [
        [(_marked(cell, cell.text, "{}"), "bold" if cell.best else "") for cell in row]
        for row in table.rows
    ]
    right = [number for number, heading in enumerate(table.head) if heading not in _WORDS]
    print_grid(table.head, rows, title=table.title, right=right, ends=ends, width=width)
    say(*table.notes, style="dim")


def _marked(cell: Cell, text: str, bold: str, alike: str = "≈") -> str:
    text = f"{text} {alike}" if cell.alike else text
    return bold.format(text) if cell.best else text


def print_ranks(ranks: Ranking) -> None:
    """Print average ranks over datasets, and which are not distinguishable."""
    listed = ", ".join(f"{name} {rank:.2f}" for name, rank in ranks.ranks.items())
    friedman = "" if ranks.p is None else f"; Friedman p {ranks.p:.3g}"
    say(f"average rank over {ranks.datasets} datasets: {listed}")
    say(
        f"critical difference {ranks.difference:.2f} (Nemenyi, 5 %){friedman}",
        *(f"≈ {', '.join(group)}" for group in ranks.groups),
        style="dim",
    )


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
    text = re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(shown(text), quote=False))
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
    return " ".join("".join(_LATEX.get(sign, sign) for sign in shown(text)).split())
