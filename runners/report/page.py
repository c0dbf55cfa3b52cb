"""The report as one HTML page: a template, its style and scripts, and the data as JSON.

The scripts are let in by their hashes (Content-Security-Policy), everything else is shut out: even
markup that found its way into the page could neither run nor fetch.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import hashlib
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.storage.run_folder import RunFolder
from runners.evaluation.selection import chosen_on
from runners.report.curves import epochs, measures, retrieval_curves
from runners.report.gallery import Thumbnails, gallery
from runners.report.published import Comparison, Match
from runners.report.study import Study
from runners.report.zero_shot_section import RUNS_WITH_CLASSES, zero_shot
from runners.results.leaderboard import Row, grouped, rank_methods
from runners.results.tables import (
    ALIKE,
    COSTS,
    LEADERBOARD,
    MOST_TOO_FEW,
    PAGE,
    TERMINAL,
    TOO_FEW,
    Column,
    legend,
)

ASSETS = Path(__file__).parent / "assets"
_SCRIPTS = ("dom.js", "charts.js", "tables.js")


def render(data: dict[str, Any], name: str) -> str:
    """Return the HTML page that ``assets/<name>.js`` draws from ``data``."""
    style = _asset("page.css")
    script = "\n".join(_asset(file) for file in (*_SCRIPTS, f"{name}.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    content = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # the only way out of a script element is its end tag, and of a comment in it, "<!--"
    content = content.replace("<", "\\u003c").replace("\u2028", "\\u2028")
    content = content.encode("utf-8", "replace").decode()  # a lone surrogate has no UTF-8
    page = _asset("page.html")
    for mark, text in (
        ("@POLICY@", policy), ("@STYLE@", style), ("@SCRIPT@", script), ("@DATA@", content),
    ):  # fmt: skip
        page = page.replace(mark, text, 1)
    return page


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def report_data(study: Study, comparison: Comparison | None, queries: int) -> dict[str, Any]:
    """Return all that the page shows; ``queries`` in the gallery of each dataset and direction."""
    thumbnails = Thumbnails()
    retrieved = gallery(study, queries, thumbnails)
    return {
        "root": str(study.root), "runs": len(study.metrics),
        "made": datetime.datetime.now().astimezone().isoformat(" ", timespec="minutes"),
        "lines": [_line(study, row) for row in study.rows],
        "columns": {"leaderboard": _columns(LEADERBOARD), "costs": _columns(COSTS)},
        "ties": 0.005, "alike": ALIKE[TERMINAL], "too_few": [MOST_TOO_FEW, TOO_FEW],
        "legends": _legends(study),
        "gallery": retrieved, "pictures": thumbnails.uris,
        "zero_shot": zero_shot(study), "zero_shot_limit": RUNS_WITH_CLASSES,
        "published": None if comparison is None else _published(study, comparison),
        "protocols": _protocols(study), "ranks": _ranks(study),
    }  # fmt: skip


_FIELDS = (
    "dataset", "direction", "method", "name", "backbone", "variant", "bits", "mean", "std", "ci95",
    "alike", "p_seeds", "p_queries", "seeds",
)  # fmt: skip


def _line(study: Study, row: Row) -> dict[str, Any]:
    return {
        **{field: getattr(row, field) for field in _FIELDS},
        "worst": statistics.fmean(r.worst for r in row.results),
        "best": statistics.fmean(r.best for r in row.results),
        "splits": list(row.split_hashes),
        "measures": measures(row), **retrieval_curves(row), "epochs": epochs(row),
        "leaderboard": _values(LEADERBOARD, row), "costs": _values(COSTS, row),
    }  # fmt: skip


def _legends(study: Study) -> list[list[str]]:
    """Return the lines below the leaderboard of each dataset and direction."""
    tasks = grouped(study.rows, "dataset", "direction")
    return [[*task, line] for task, rows in tasks.items() for line in legend(rows)]


def _columns(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Return what ``assets/tables.js`` must know of the columns that the page shows."""
    return [
        {"key": c.key, "heading": c.heading, "digits": c.digits, "over": c.over, **c.page}
        for c in columns
        if PAGE in c.shown
    ]


def _values(columns: Sequence[Column], row: Row) -> dict[str, Any]:
    return {column.key: column.value(row) for column in columns if PAGE in column.shown}


def _protocols(study: Study) -> list[dict[str, Any]]:
    """Return every protocol and split once, with the number of runs and where they were made."""
    entries: dict[str, dict[str, Any]] = {}
    for path, metrics in study.metrics.items():
        protocol = metrics["protocol"]
        description = {
            "dataset": metrics["run"]["dataset"], "split_hash": metrics["split_hash"],
            "split": protocol.get("split", ""), "rows": protocol.get("rows", {}),
            "metric": protocol.get("metric", ""), "relevance": protocol.get("relevance", ""),
            "no_relevant": protocol.get("queries_without_relevant", ""),
            "selected": chosen_on(protocol["selected"]), "captions": protocol.get("captions") or "",
        }  # fmt: skip
        status = RunFolder(path).status()
        entry = entries.setdefault(repr(description), {**description, "runs": 0, "made": {}})
        entry["runs"] += 1
        torch = status.get("versions", {}).get("torch", "")
        software = f"{status.get('git_revision') or 'no revision'}, torch {torch}"
        entry["made"][software] = entry["made"].get(software, 0) + 1
    return list(entries.values())


def _ranks(study: Study) -> dict[str, Any] | None:
    """Return the ranking of methods over datasets, None with too few of either."""
    ranking = rank_methods(study.rows)
    if ranking is None:
        return None
    return {**dataclasses.asdict(ranking), "ranks": list(ranking.ranks.items())}


def _published(study: Study, comparison: Comparison) -> dict[str, Any]:
    number = {id(row): i for i, row in enumerate(study.rows)}
    return {
        "rows": comparison.rows,
        "left_out": list(comparison.left_out.items()),
        "matches": [_match(match, number) for match in comparison.matches],
        "near": [_match(match, number) for match in comparison.near],
    }  # fmt: skip


def _match(match: Match, number: dict[int, int]) -> dict[str, Any]:
    return {
        "line": number[id(match.row)], "measure": match.measure, "recipe": match.recipe,
        "theirs": match.published.value, "ours": match.ours, "std": match.std,
        "paper": match.published.paper_or_repo, "source": match.published.source,
        "differs": list(match.differs), "notes": list(match.notes),
    }  # fmt: skip
