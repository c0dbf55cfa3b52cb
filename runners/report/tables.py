"""The tables of a report as Markdown and as LaTeX (booktabs)."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

from runners.report.published import Comparison
from runners.report.study import Line, Study
from runners.results.zero_shot_columns import NAMES, NOTE

BEST, ALIKE = "best", "alike"
SAME = "not distinguishable from the best (paired t tests over seeds and queries, 5 %, Holm)"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A text, and how it compares: ``best``, ``alike`` (not distinguishable from it) or ``""``."""

    text: str
    mark: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A titled table; the first column is left-aligned, the others right-aligned."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def all_tables(study: Study, comparison: Comparison | None = None) -> list[Table]:
    """Return the leaderboards, time, and the comparison with published numbers if there is one."""
    tables = [_leaderboard(place, lines) for place, lines in study.places.items()]
    for place, lines in study.places.items():
        measured = [line for line in lines if line.row.all_classes is not None]
        if measured:
            tables.append(_zero_shot(place, measured))
    tables.append(_costs(study))
    if comparison is not None:
        tables.append(_published(comparison))
    return tables


def score(mean: float, std: float | None) -> str:
    """Return ``0.1234 ± 0.0056``, or the mean alone."""
    return f"{mean:.4f}" + (f" ± {std:.4f}" if std is not None else "")


def _leaderboard(place: tuple[str, str], lines: Sequence[Line]) -> Table:
    bits = sorted({line.row.bits for line in lines})
    best = {k: max(line.row.mean for line in lines if line.row.bits == k) for k in bits}
    by_name: dict[str, dict[int, Line]] = {}
    for line in lines:
        by_name.setdefault(line.name, {})[line.row.bits] = line
    rows = []
    for name in sorted(by_name, key=lambda n: -max(x.row.mean for x in by_name[n].values())):
        own = by_name[name]
        cells = [_score_cell(own.get(k), best[k]) for k in bits]
        seeds = str(max(line.row.seeds for line in own.values()))
        chosen = ", ".join(sorted({line.row.selected_on for line in own.values()}))
        rows.append((Cell(name), *cells, Cell(seeds), Cell(chosen)))
    splits = ", ".join(sorted({h for line in lines for h in line.row.split_hashes}))
    notes = [f"split {splits}; expected over tie orders; mean ± std over seeds; best in bold"]
    if any(line.row.alike for line in lines):
        notes.append(f"≈ {SAME}")
    head = ("method", *(f"{k} bits" for k in bits), "seeds", "epoch chosen on")
    return Table(f"{place[0]}, {place[1]}, mAP@all", head, tuple(rows), tuple(notes))


def _score_cell(line: Line | None, best: float) -> Cell:
    if line is None:
        return Cell("–")
    mark = BEST if line.row.mean == best else ALIKE if line.row.alike else ""
    return Cell(score(line.row.mean, line.row.std), mark)


def _zero_shot(place: tuple[str, str], lines: Sequence[Line]) -> Table:
    rows = []
    for line in sorted(lines, key=lambda x: (x.row.bits, -(x.row.all_classes or 0))):
        cells = [Cell(str(line.row.bits)), Cell(line.name)]
        for measure in NAMES:
            mean, std = getattr(line.row, measure), getattr(line.row, f"{measure}_std")
            cells.append(Cell("–" if mean is None else score(mean, std)))
        rows.append(tuple(cells))
    title = f"{place[0]}, {place[1]}, zero-shot mAP@all"
    return Table(title, ("bits", "method", *NAMES.values()), tuple(rows), (NOTE,))


def _costs(study: Study) -> Table:
    once = {(x.row.dataset, x.name, x.row.bits): x for x in study.lines}  # not by direction
    rows = []
    for line in once.values():
        timings = [study.metrics[r.folder].get("timing", {}) for r in line.results]
        seconds = [
            f"{statistics.fmean(t.get(key, 0.0) for t in timings):.1f}"
            for key in ("setup_s", "train_s", "encode_s", "time_s")
        ]
        row = line.row
        names = (line.name, row.dataset, str(row.bits))
        rows.append(tuple(Cell(text) for text in (*names, *seconds)))
    head = (
        "method", "dataset", "bits", "set-up s", "training s", "encoding s", "measuring s",
    )  # fmt: skip
    return Table("Time, means over seeds", head, tuple(rows))


def _published(comparison: Comparison) -> Table:
    rows = []
    for match in comparison.matches:
        theirs, row = match.published, match.line.row
        texts = (
            match.line.name, row.dataset, row.direction, str(row.bits), f"mAP@{theirs.cut}",
            f"{theirs.value:.4f}", score(match.ours, match.std),
            f"{match.ours - theirs.value:+.4f}", match.protocol.name, theirs.paper, theirs.source,
        )  # fmt: skip
        rows.append(tuple(Cell(text) for text in texts))
    head = (
        "method", "dataset", "task", "bits", "measure", "published", "ours", "difference",
        "protocol", "paper", "source",
    )  # fmt: skip
    notes = [f"{count} not compared: {reason}" for reason, count in comparison.left_out.items()]
    return Table("Published and ours, same protocol", head, tuple(rows), tuple(notes))


def as_markdown(tables: Sequence[Table]) -> str:
    """Return the tables in GitHub's Markdown."""
    parts = []
    for table in tables:
        lines = [f"### {_markdown(table.title)}", ""]
        lines.append("| " + " | ".join(map(_markdown, table.head)) + " |")
        lines.append("|" + "|".join([" :-- "] + [" --: "] * (len(table.head) - 1)) + "|")
        for row in table.rows:
            lines.append("| " + " | ".join(_markdown_cell(cell) for cell in row) + " |")
        parts.append("\n".join([*lines, "", *(_markdown(note) + "  " for note in table.notes)]))
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _markdown_cell(cell: Cell) -> str:
    text = _markdown(cell.text)
    return f"**{text}**" if cell.mark == BEST else f"{text} ≈" if cell.mark == ALIKE else text


def _markdown(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_[]|~":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


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
        parts.append(
            "\\begin{table}\n\\centering\n"
            f"\\caption{{{caption}}}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n"
            + " & ".join(map(_latex, table.head))
            + " \\\\\n\\midrule\n"
            + "".join(" & ".join(map(_latex_cell, row)) + " \\\\\n" for row in table.rows)
            + "\\bottomrule\n\\end{tabular}\n\\end{table}"
        )
    return "\n\n".join(parts) + "\n"


def _latex_cell(cell: Cell) -> str:
    text = _latex(cell.text)
    if cell.mark == BEST:
        return f"\\textbf{{{text}}}"
    return f"{text} $\\approx$" if cell.mark == ALIKE else text


def _latex(text: str) -> str:
    return " ".join("".join(_LATEX.get(sign, sign) for sign in text).split())
