"""The tables of a report that are written as Markdown and as LaTeX."""

from __future__ import annotations

from runners.report.published import Comparison
from runners.report.study import Study
from runners.results.tables import FILE, Cell, Table, costs, leaderboard, score, zero_shot


def all_tables(study: Study, comparison: Comparison | None = None) -> list[Table]:
    """Return the leaderboards, time, and the comparison with published numbers if there is one."""
    tasks = study.tasks.values()
    tables = [leaderboard(rows, FILE) for rows in tasks]
    tables += [table for rows in tasks for table in zero_shot(rows, FILE)]
    tables.append(costs(study.rows, FILE))
    return tables if comparison is None else [*tables, _published(comparison)]


def _published(comparison: Comparison) -> Table:
    rows = []
    for match in comparison.matches:
        theirs, row = match.published, match.row
        texts = (
            row.name, row.dataset, row.direction, str(row.bits), f"mAP@{theirs.cut}",
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
