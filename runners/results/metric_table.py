"""Metrics of one comparison, as a table for the terminal and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runners.results.renderers import print_table
from runners.results.tables import Table, cells
from utils.errors import UserError
from utils.plots import Panel, panel_plot
from utils.terminal import say

_BY_RANK = {
    "precision_at": "precision@{}", "recall_at": "recall@{}", "ndcg": "NDCG@{}",
    "semantic_ndcg": "NDCG@{} by class similarity",
}  # fmt: skip


def print_metrics(result: dict[str, Any]) -> None:
    """Print mAP with its band over tie orders, precision and recall at N, for every direction."""
    for direction, report in result["directions"].items():
        rows = []
        for cut, value in report["map"].items():
            name = f"mAP@{cut}" + (f" (÷ {value['denominator']})" if "denominator" in value else "")
            rows.append(cells(name, *(f"{value[k]:.4f}" for k in ("expected", "worst", "best"))))
        for policy, repeated in report.get("compat", {}).items():
            for cut, value in repeated["map"].items():
                text = "nan" if value is None else f"{value:.4f}"
                rows.append(cells(f"mAP@{cut} as {policy}", text, "", ""))
        for key, name in _BY_RANK.items():
            for at, value in report.get(key, {}).items():
                rows.append(cells(name.format(at), f"{value:.4f}", "", ""))
        rows.append(cells("R-precision", f"{report['r_precision']:.4f}", "", ""))
        radius = f"{report['precision_radius2']:.4f}"
        rows.append(cells("precision within radius 2", radius, "", ""))
        title = f"{direction}: {report['queries']} queries, {report['database']} rows"
        print_table(Table(title, ("metric", "expected", "worst", "best"), tuple(rows)), None)
        say(
            f"ties: mean over all orders; queries without a relevant row: "
            f"{report['queries_without_relevant']}"
        )
        say(*(f"note: {note}" for note in _notes(report)))
    say(f"measured in {result['timing']['time_s']:.3f} s")


def print_cuts(directions: dict[str, dict[str, Any]]) -> None:
    """Print mAP at every cut, a line per direction, and the epochs where they are not one.

    Nothing where all rows are the only cut, of one epoch.
    """
    cuts = list(dict.fromkeys(cut for report in directions.values() for cut in report["map"]))
    own_epochs = len({report.get("epoch") for report in directions.values()}) > 1
    if cuts in ([], ["all"]) and not own_epochs:
        return
    rows = []
    band = "{expected:.4f} ({worst:.4f} to {best:.4f})"
    for direction, report in directions.items():
        bands = [band.format(**report["map"][cut]) if cut in report["map"] else "–" for cut in cuts]
        rows.append(cells(direction, *bands))
    title = "mAP by cut: expected over tie orders (worst to best)"
    print_table(Table(title, ("direction", *(f"mAP@{cut}" for cut in cuts)), tuple(rows)))
    for direction, report in directions.items():
        own = "".join(f"; {name} of {epoch}" for name, epoch in report.get("epochs", {}).items())
        epoch = f"of epoch {report.get('epoch')}{own}"
        for note in [*([epoch] if own or own_epochs else []), *_notes(report)]:
            say(f"{direction}: {note}", style="dim")


def _notes(report: dict[str, Any]) -> list[str]:
    """Return what a reader of the table should know about one direction."""
    notes = list(report.get("notes", ()))
    beyond = [str(cut) for cut in report.get("beyond_database", ())]
    if beyond:
        notes.append(f"the database has {report['database']} rows; @{', @'.join(beyond)} means all")
    for policy, repeated in report.get("compat", {}).items():
        if isinstance(repeated, dict):  # of main.py metrics; a run's tables have them as columns
            notes.append(f"{policy} is {repeated['computes']}; ties by row number, codes as stored")
    return notes


def check_plot_path(path: Path) -> None:
    """Refuse a picture that could not be written, before the work.

    Raises:
        UserError: another suffix than ``.png``, or a folder of that name.
    """
    if path.suffix.lower() != ".png" or path.is_dir():
        raise UserError(f"'{path}' is no name for the plot; a file that ends in .png is needed.")


def plot_metrics(result: dict[str, Any], path: Path) -> None:
    """Write the precision-recall curves of every direction, by rank and by Hamming radius.

    The legend gives mAP (at the first cut) with its band over tie orders. By rank, precision and
    recall are means over queries; by radius they are pooled over all pairs, and a radius within
    which nothing relevant lies has no point.
    """
    by_rank, by_radius = {}, {}
    for direction, report in result["directions"].items():
        cut, band = next(iter(report["map"].items()))
        name = (
            f"{direction}: mAP@{cut} {band['expected']:.4f}, "
            f"ties {band['worst']:.4f} to {band['best']:.4f}"
        )
        rank, radius = report["pr_rank"], report["pr_radius"]
        by_rank[name] = rank["recall"], rank["precision"]
        points = [p for p in zip(radius["recall"], radius["precision"], strict=True) if p[0] > 0]
        by_radius[name] = [p[0] for p in points], [p[1] for p in points]
    report = next(iter(result["directions"].values()))
    panel_plot(
        [
            Panel(by_rank, "recall", "precision", "by rank, mean over queries", marker="."),
            Panel(by_radius, "recall", "precision", "by Hamming radius, pooled", marker="."),
        ],
        path,
        f"{report['bits']} bits, {report['queries']} queries, {report['database']} rows",
    )
