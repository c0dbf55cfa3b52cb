"""The report as one HTML page: a template, its style and scripts, and the data as JSON.

The scripts are let in by their hashes (Content-Security-Policy), everything else is shut out: even
markup that found its way into the page could neither run nor fetch.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import statistics
from pathlib import Path
from typing import Any

from runners.report.curves import epochs, measures, retrieval_curves
from runners.report.gallery import QUERIES, Thumbnails, gallery
from runners.report.published import Comparison
from runners.report.study import Line, Study
from runners.report.zero_shot_section import RUNS_WITH_CLASSES, zero_shot
from runners.results.leaderboard import rank_methods
from utils.files import write_text

ASSETS = Path(__file__).parent / "assets"
_SCRIPTS = ("dom.js", "charts.js", "tables.js")


def write_page(
    study: Study, path: Path, comparison: Comparison | None = None, queries: int = QUERIES
) -> None:
    """Write the page; ``queries``: how many the gallery shows of each dataset and direction."""
    write_text(path, render(report_data(study, comparison, queries), "report"))


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
    """Return everything that the page shows."""
    thumbnails = Thumbnails()
    shown = gallery(study, queries, thumbnails)
    number = {id(line): i for i, line in enumerate(study.lines)}
    unseen = [{**entry, "line": number[id(entry["line"])]} for entry in zero_shot(study)]
    made = datetime.datetime.now().astimezone().isoformat(" ", timespec="minutes")
    return {
        "root": str(study.root), "made": made, "runs": len(study.folders),
        "lines": [_line(study, line) for line in study.lines],
        "ties": 0.005,
        "gallery": shown, "pictures": thumbnails.uris,
        "zero_shot": unseen, "zero_shot_limit": RUNS_WITH_CLASSES,
        "published": None if comparison is None else _published(comparison, number),
        "protocols": _protocols(study), "ranks": _ranks(study),
    }  # fmt: skip


def _line(study: Study, line: Line) -> dict[str, Any]:
    row = line.row
    results = line.results
    return {
        "dataset": row.dataset, "direction": row.direction, "method": row.method,
        "name": line.name, "backbone": row.backbone, "variant": row.variant, "bits": row.bits,
        "mean": row.mean, "std": row.std, "ci95": row.ci95, "alike": row.alike,
        "p_seeds": row.p_seeds, "p_queries": row.p_queries, "seeds": row.seeds,
        "worst": statistics.fmean(r.worst for r in results),
        "best": statistics.fmean(r.best for r in results),
        "selected": row.selected_on, "splits": list(row.split_hashes),
        "measures": measures(line), **retrieval_curves(line), "epochs": epochs(study, line),
        "costs": _costs(study, line),
    }  # fmt: skip


def _costs(study: Study, line: Line) -> dict[str, Any]:
    """Return seconds of each phase, bytes of the codes and, where a run says so, peak memory."""
    metrics = [study.metrics[result.folder] for result in line.results]
    timings = [m.get("timing", {}) for m in metrics]
    costs: dict[str, Any] = {
        key: statistics.fmean(t[key] for t in timings)
        for key in ("setup_s", "train_s", "encode_s", "time_s")
        if all(key in t for t in timings)
    }
    rows = line.results[0].report.get("database")
    if rows is not None:
        costs["codes"] = rows * -(-line.row.bits // 8)
    peaks = [m.get("memory", {}) for m in metrics]
    for key in ("peak_mb", "device_peak_mb"):
        if all(key in peak for peak in peaks):
            costs[key] = max(peak[key] for peak in peaks)
    costs["weights"] = sum(
        file.stat().st_size
        for file in (line.results[0].folder / "checkpoints").glob("best/*.safetensors")
    ) or sum(
        file.stat().st_size
        for file in (line.results[0].folder / "checkpoints").glob("last/[ml]*.safetensors")
    )
    return costs


def _protocols(study: Study) -> list[dict[str, Any]]:
    """Return every protocol and split once, with the number of runs and where they were made."""
    found: dict[str, dict[str, Any]] = {}
    for path, metrics in study.metrics.items():
        protocol = metrics.get("protocol", {})
        selected = protocol.get("selected", {})
        told = {
            "dataset": metrics["run"]["dataset"], "split_hash": metrics["split_hash"],
            "split": protocol.get("split", ""), "rows": protocol.get("rows", {}),
            "metric": protocol.get("metric", ""), "relevance": protocol.get("relevance", ""),
            "no_relevant": protocol.get("queries_without_relevant", ""),
            "selected": selected.get("on", ""), "captions": protocol.get("captions") or "",
        }  # fmt: skip
        status = study.folders[path].status()
        entry = found.setdefault(repr(told), {**told, "runs": 0, "made": {}})
        entry["runs"] += 1
        torch = status.get("versions", {}).get("torch", "")
        where = f"{status.get('git_revision') or 'no revision'}, torch {torch}"
        entry["made"][where] = entry["made"].get(where, 0) + 1
    return list(found.values())


def _ranks(study: Study) -> dict[str, Any] | None:
    """Return the ranking of methods over datasets, None with too few of either."""
    found = rank_methods([line.row for line in study.lines])
    if found is None:
        return None
    return {
        "ranks": list(found.ranks.items()), "groups": [list(group) for group in found.groups],
        "difference": found.difference, "p": found.p, "datasets": found.datasets,
    }  # fmt: skip


def _published(comparison: Comparison, number: dict[int, int]) -> dict[str, Any]:
    return {
        "rows": comparison.rows,
        "left_out": list(comparison.left_out.items()),
        "matches": [
            {
                "line": number[id(match.line)], "measure": f"mAP@{match.published.cut}",
                "theirs": match.published.value, "ours": match.ours, "std": match.std,
                "protocol": match.protocol.name, "paper": match.published.paper,
                "source": match.published.source, "notes": list(match.notes),
            }
            for match in comparison.matches
        ],
    }  # fmt: skip
