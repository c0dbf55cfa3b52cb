"""The files of a report, as the command line asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runners.report.page import render, report_data
from runners.report.published import Comparison, Published, compare, published_tables
from runners.report.study import Study
from runners.results.leaderboard import Row
from runners.results.renderers import as_latex, as_markdown
from runners.results.tables import FILE, Table, costs, leaderboard, zero_shot
from utils.files import write_text


def all_tables(study: Study, comparison: Comparison | None = None) -> list[Table]:
    """Return the leaderboards, time, and the comparison with published numbers if there is one."""
    tasks = study.tasks.values()
    tables = [leaderboard(rows, FILE) for rows in tasks]
    tables += [table for rows in tasks for table in zero_shot(rows, FILE)]
    tables.append(costs(study.rows, FILE))
    return tables if comparison is None else [*tables, *published_tables(comparison)]


def write_report(
    root: Path, rows: Sequence[Row], *, html: str | None, markdown: str | None,
    latex: str | None, published: list[Published] | None, queries: int,
) -> list[Path]:  # fmt: skip
    """Write the page, Markdown and LaTeX to the paths that are not None, and return these.

    The page names the folder ``root``; ``queries`` of each dataset and direction are shown there.

    Raises:
        UserError: a file cannot be written.
    """
    if not (html or markdown or latex):
        return []
    study = Study(root, tuple(rows))
    comparison = None if published is None else compare(study, published)
    if html:
        write_text(Path(html), render(report_data(study, comparison, queries), "report"))
    tables = all_tables(study, comparison)
    if markdown:
        write_text(Path(markdown), as_markdown(tables))
    if latex:
        write_text(Path(latex), as_latex(tables))
    return [Path(path) for path in (html, markdown, latex) if path]
