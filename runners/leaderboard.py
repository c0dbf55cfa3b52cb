"""What runs say together: mean ± std over seeds by method, bit length and direction."""

from __future__ import annotations

import csv
import dataclasses
import logging
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import schema
from common.config import NOT_IDENTITY
from common.run_store import RunFolder
from utils.errors import UserError
from utils.files import atomic_path

log = logging.getLogger("hashing")


@dataclasses.dataclass(frozen=True)
class Result:
    """One run and direction."""

    dataset: str
    method: str
    bits: int
    seed: int
    direction: str
    backbone: str
    map_all: float
    worst: float
    best: float
    selected_on: str
    epoch: int | None
    split_hash: str
    train_s: float
    folder: Path
    report: dict[str, Any]
    variant: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but the seed."""

    dataset: str
    method: str
    backbone: str
    variant: str
    bits: int
    direction: str
    mean: float
    std: float | None
    seeds: int
    tie_band: float
    selected_on: str
    train_s: float
    split_hashes: tuple[str, ...]


def find_runs(root: str | Path) -> list[RunFolder]:
    """Return the finished runs below ``root``, in order of their names.

    Raises:
        UserError: no such folder, or no finished run in it.
    """
    path = Path(root)
    if not path.is_dir():
        raise UserError(f"'{root}' is not a folder; give the output folder of a sweep or train.")
    folders = [RunFolder(p.parent) for p in sorted(path.rglob("metrics.json"))]
    done = [folder for folder in folders if folder.is_done]
    if not done:
        raise UserError(f"'{root}' holds no finished run; run train or sweep with output={root}.")
    return done


def collect(folders: Sequence[RunFolder]) -> list[Result]:
    """Return one result per run and direction."""
    import yaml

    results = []
    configs = {f.path: yaml.safe_load(f.config_file.read_text(encoding="utf-8")) for f in folders}
    variants = _variants(configs)
    for folder in folders:
        metrics = folder.metrics()
        run, selected = metrics["run"], metrics["protocol"]["selected"]
        for direction, report in metrics["directions"].items():
            value = report["map"].get("all") or next(iter(report["map"].values()))
            results.append(
                Result(
                    dataset=run["dataset"], method=run["method"], bits=run["bits"],
                    seed=run["seed"], direction=direction, backbone=run["backbone"],
                    map_all=value["expected"], worst=value["worst"], best=value["best"],
                    selected_on=selected["on"], epoch=selected["epoch"],
                    split_hash=metrics["split_hash"],
                    train_s=metrics["timing"].get("train_s", 0.0), folder=folder.path,
                    report=report, variant=variants[folder.path],
                )
            )  # fmt: skip
    return results


def _variants(configs: dict[Path, dict[str, Any]]) -> dict[Path, str]:
    """Tell apart runs of one method and dataset by the settings in which they differ."""
    flat = {path: schema.flat(config) for path, config in configs.items()}
    groups: dict[tuple[Any, Any], list[Path]] = {}
    for path, values in flat.items():
        groups.setdefault((values.get("dataset.config"), values.get("method")), []).append(path)
    ordinary = {"bits", "seed", "method", "dataset.config", *NOT_IDENTITY}
    variants = {}
    for paths in groups.values():
        keys = sorted({key for path in paths for key in flat[path]} - ordinary)
        differing = [k for k in keys if len({repr(flat[p].get(k)) for p in paths}) > 1]
        for path in paths:
            variants[path] = " ".join(f"{key}={flat[path].get(key)}" for key in differing)
    return variants


def summarize(results: Sequence[Result]) -> list[Row]:
    """Return mean and sample deviation (ddof 1) over seeds."""
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for r in results:
        key = (r.dataset, r.method, r.backbone, r.variant, r.bits, r.direction)
        groups.setdefault(key, []).append(r)
    rows = []
    for key, members in groups.items():
        values = [m.map_all for m in members]
        rows.append(
            Row(
                *key,
                mean=statistics.fmean(values),
                std=statistics.stdev(values) if len(values) > 1 else None,
                seeds=len(values),
                tie_band=max(m.best - m.worst for m in members),
                selected_on=", ".join(sorted({m.selected_on for m in members})),
                train_s=statistics.fmean(m.train_s for m in members),
                split_hashes=tuple(sorted({m.split_hash for m in members})),
            )
        )
    return sorted(rows, key=lambda r: (r.dataset, r.direction, r.method, r.variant, r.bits))


def print_tables(rows: Sequence[Row]) -> None:
    """Print one table per dataset and direction, the best of each column bold."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 120)
    for dataset, direction in sorted({(r.dataset, r.direction) for r in rows}):
        chosen = [r for r in rows if (r.dataset, r.direction) == (dataset, direction)]
        bits = sorted({r.bits for r in chosen})
        table = Table(title=f"{dataset}  {direction}  mAP@all (mean ± std over seeds)")
        table.add_column("method")
        for k in bits:
            table.add_column(f"{k} bits", justify="right")
        for heading in ("seeds", "epoch chosen on", "train s"):
            table.add_column(heading, justify="right")
        for line in _lines(chosen, bits):
            table.add_row(*line)
        console.print(table)
        splits = sorted({h for r in chosen for h in r.split_hashes})
        console.print(f"split {', '.join(splits)}; expected over tie orders\n", style="dim")


def _lines(rows: Sequence[Row], bits: Sequence[int]) -> list[list[str]]:
    best = {k: max((r.mean for r in rows if r.bits == k), default=0.0) for k in bits}
    several_backbones = len({r.backbone for r in rows}) > 1
    by_name: dict[str, dict[int, Row]] = {}
    for row in rows:
        backbone = f"[{row.backbone}]" if several_backbones else ""
        name = " ".join(part for part in (row.method, row.variant, backbone) if part)
        by_name.setdefault(name, {})[row.bits] = row
    lines = []
    for name in sorted(by_name, key=lambda n: -max(r.mean for r in by_name[n].values())):
        own = by_name[name]
        some = next(iter(own.values()))
        seconds = statistics.fmean(row.train_s for row in own.values())
        cells = [_cell(own.get(k), best[k]) for k in bits]
        seeds = str(max(row.seeds for row in own.values()))
        lines.append([name.replace("[", r"\["), *cells, seeds, some.selected_on, f"{seconds:.1f}"])
    return lines


def _cell(row: Row | None, best: float) -> str:
    if row is None:
        return "–"
    text = f"{row.mean:.4f}" + (f" ± {row.std:.4f}" if row.std is not None else "")
    return f"[bold]{text}[/bold]" if row.mean == best else text


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write the summary rows as CSV, atomically."""
    names = [field.name for field in dataclasses.fields(Row)]
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for row in rows:
            values = [getattr(row, name) for name in names]
            writer.writerow([";".join(v) if isinstance(v, tuple) else v for v in values])


def plot_curves(results: Sequence[Result], folder: Path) -> list[Path]:
    """Write precision against recall (by rank) as PNG per dataset, direction and bit length."""
    from utils.plots import line_plot

    written = []
    for place in sorted({(r.dataset, r.direction, r.bits) for r in results}):
        dataset, direction, bits = place
        chosen = [r for r in results if (r.dataset, r.direction, r.bits) == place]
        first_seeds: dict[str, Result] = {}
        for r in sorted(chosen, key=lambda r: r.seed):
            first_seeds.setdefault(f"{r.method} {r.variant}".strip(), r)
        curves = {}
        for name, r in sorted(first_seeds.items(), key=lambda item: -item[1].map_all):
            curve = r.report["pr_rank"]
            curves[f"{name} ({r.map_all:.3f})"] = (curve["recall"], curve["precision"])
        path = folder / f"pr-{dataset}-{direction}-{bits}bit.png"
        line_plot(curves, path, "recall", "precision", f"{dataset}, {direction}, {bits} bits")
        written.append(path)
    return written
