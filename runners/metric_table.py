"""Metrics of one comparison as a table for the terminal."""

from __future__ import annotations

from typing import Any


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
        for kind in ("precision_at", "recall_at"):
            for at, value in report[kind].items():
                table.add_row(f"{kind.removesuffix('_at')}@{at}", f"{value:.4f}", "", "")
        table.add_row("precision within radius 2", f"{report['precision_radius2']:.4f}", "", "")
        console.print(table)
        console.print(
            f"ties: mean over all orders; queries without a relevant row: "
            f"{report['queries_without_relevant']}; {result['timing']['time_s']:.3f} s"
        )
