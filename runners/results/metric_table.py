"""Metrics of one comparison, as a table for the terminal and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from utils.errors import UserError


def print_metrics(result: dict[str, Any]) -> None:
    """Print mAP with its band over tie orders, precision and recall at N, for every direction."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for direction, report in result["directions"].items():
        table = Table(title=f"{direction}: {report['queries']} queries, {report['database']} rows")
        for heading in ("metric", "expected", "worst", "best"):
            table.add_column(heading, justify="left" if heading == "metric" else "right")
        for at, value in report["map"].items():
            name = f"mAP@{at}" + (f" (÷ {value['denominator']})" if "denominator" in value else "")
            table.add_row(name, *(f"{value[key]:.4f}" for key in ("expected", "worst", "best")))
        for policy, repeated in report.get("compat", {}).items():
            for at, value in repeated["map"].items():
                shown = "nan" if value is None else f"{value:.4f}"
                table.add_row(f"mAP@{at} as {policy}", shown, "", "")
        for kind in ("precision_at", "recall_at"):
            for at, value in report[kind].items():
                table.add_row(f"{kind.removesuffix('_at')}@{at}", f"{value:.4f}", "", "")
        for at, value in report["ndcg"].items():
            table.add_row(f"NDCG@{at}", f"{value:.4f}", "", "")
        for at, value in report.get("semantic_ndcg", {}).items():
            table.add_row(f"NDCG@{at} by class similarity", f"{value:.4f}", "", "")
        table.add_row("R-precision", f"{report['r_precision']:.4f}", "", "")
        table.add_row("precision within radius 2", f"{report['precision_radius2']:.4f}", "", "")
        console.print(table)
        console.print(
            f"ties: mean over all orders; queries without a relevant row: "
            f"{report['queries_without_relevant']}"
        )
        for note in _notes(report):
            console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"measured in {result['timing']['time_s']:.3f} s")


def print_cuts(directions: dict[str, dict[str, Any]]) -> None:
    """Print mAP at every cut, a line per direction; nothing where all rows are the only cut.

    Args:
        directions: direction → report, of ``metrics.json``.
    """
    from rich.console import Console
    from rich.table import Table

    cuts = list(dict.fromkeys(at for report in directions.values() for at in report["map"]))
    if cuts in ([], ["all"]):
        return
    console = Console(width=None if Console().is_terminal else 120)
    table = Table(title="mAP by cut: expected over tie orders (worst to best)")
    table.add_column("direction")
    for at in cuts:
        table.add_column(f"mAP@{at}", justify="right")
    for direction, report in directions.items():
        cells = [_band(report["map"][at]) if at in report["map"] else "–" for at in cuts]
        table.add_row(direction, *cells)
    console.print(table)
    for direction, report in directions.items():
        for note in _notes(report):
            told = f"{direction}: {note}"
            console.print(told, markup=False, highlight=False, soft_wrap=True, style="dim")


def _band(value: dict[str, float]) -> str:
    return f"{value['expected']:.4f} ({value['worst']:.4f} to {value['best']:.4f})"


def _notes(report: dict[str, Any]) -> list[str]:
    """Return what a reader of the table should know about one direction."""
    notes = list(report.get("notes", ()))
    beyond = [str(cut) for cut in report.get("beyond_database", ())]
    if beyond:
        notes.append(f"the database has {report['database']} rows; @{', @'.join(beyond)} means all")
    for policy, repeated in report.get("compat", {}).items():
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
    from utils.plots import Panel, panel_plot

    by_rank, by_radius = {}, {}
    for direction, report in result["directions"].items():
        at, band = next(iter(report["map"].items()))
        name = (
            f"{direction}: mAP@{at} {band['expected']:.4f}, "
            f"ties {band['worst']:.4f} to {band['best']:.4f}"
        )
        rank, radius = report["pr_rank"], report["pr_radius"]
        by_rank[name] = rank["recall"], rank["precision"]
        points = [p for p in zip(radius["recall"], radius["precision"], strict=True) if p[0] > 0]
        by_radius[name] = [p[0] for p in points], [p[1] for p in points]
    some = next(iter(result["directions"].values()))
    panel_plot(
        [
            Panel(by_rank, "recall", "precision", "by rank, mean over queries", marker="."),
            Panel(by_radius, "recall", "precision", "by Hamming radius, pooled", marker="."),
        ],
        path,
        f"{some['bits']} bits, {some['queries']} queries, {some['database']} rows",
    )
