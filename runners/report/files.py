"""The files of a report, as the command line asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runners.report import published as tables_of_papers
from runners.report.page import write_page
from runners.report.published import Published
from runners.report.study import Study
from runners.report.tables import all_tables
from runners.results.leaderboard import Row
from runners.results.renderers import as_latex, as_markdown
from utils.files import write_text


def read_published(path: str | None) -> list[Published] | None:
    """Return the published numbers in a CSV file, None without one; before the work is begun."""
    return None if path is None else tables_of_papers.read_published(path)


def write_report(
    root: Path, rows: Sequence[Row], *, html: str | None = None, markdown: str | None = None,
    latex: str | None = None, published: list[Published] | None = None, queries: int = 6,
) -> list[Path]:  # fmt: skip
    """Write what is asked for and return the paths.

    Args:
        root: the folder of the runs, named on the page.
        rows: their summary, from :func:`runners.results.leaderboard.summarize`.
        html: path of the page, if one is wanted.
        markdown: of the tables.
        latex: of the tables.
        published: numbers to set beside ours.
        queries: shown in the gallery, of each dataset and direction.

    Raises:
        UserError: a file cannot be written.
    """
    if not (html or markdown or latex):
        return []
    study = Study(root, tuple(rows))
    comparison = None if published is None else tables_of_papers.compare(study, published)
    if html:
        write_page(study, Path(html), comparison, queries)
    tables = all_tables(study, comparison)
    if markdown:
        write_text(Path(markdown), as_markdown(tables))
    if latex:
        write_text(Path(latex), as_latex(tables))
    return [Path(path) for path in (html, markdown, latex) if path]
