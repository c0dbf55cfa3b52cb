"""What runs say together: mean ± std over seeds by method, bit length and direction, and tests."""

from __future__ import annotations

import csv
import dataclasses
import logging
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config import schema
from common.config.run_config import NOT_IDENTITY
from common.storage.run_folder import RunFolder
from runners.evaluation.query_ap import measured_rows, read_query_ap
from runners.results.significance import Ranking, Sample, against_best, half_width, ranking
from runners.results.zero_shot_columns import NAMES, NOTE, columns, measures_of
from utils.errors import UserError
from utils.files import atomic_path

if TYPE_CHECKING:
    from rich.console import Console

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
    zero_shot: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but the seed.

    Attributes:
        ci95: half the width of the 95 % interval of the mean, over seeds.
        p_seeds, p_queries: corrected, against the best of the column; see
            :mod:`runners.results.significance`.
        alike: whether it is not distinguishable from the best; None where no test can be made.
        all_classes, unseen_only, harmonic: zero-shot measures, mAP@all; None where they do not
            apply. See :mod:`runners.evaluation.zero_shot`.
    """

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
    ci95: float | None = None
    p_seeds: float | None = None
    p_queries: float | None = None
    alike: bool | None = None
    all_classes: float | None = None
    all_classes_std: float | None = None
    unseen_only: float | None = None
    unseen_only_std: float | None = None
    harmonic: float | None = None
    harmonic_std: float | None = None

    @property
    def label(self) -> str:
        """Method and variant."""
        return f"{self.method} {self.variant}".strip()


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
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # eight times faster
    configs = {
        f.path: yaml.load(f.config_file.read_text(encoding="utf-8"), loader) for f in folders
    }
    variants = _variants(configs)
    for folder in folders:
        metrics = folder.metrics()
        run, selected = metrics["run"], metrics["protocol"]["selected"]
        zero_shot = (metrics.get("zero_shot") or {}).get("directions", {})
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
                    zero_shot=measures_of(zero_shot.get(direction, {})),
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
    """Return mean and sample deviation (ddof 1) over seeds, and how each compares with the best."""
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
                ci95=half_width(values),
                **columns([m.zero_shot for m in members]),
            )
        )
    rows = _compared(rows, [_sample(members) for members in groups.values()])
    return sorted(rows, key=lambda r: (r.dataset, r.direction, r.method, r.variant, r.bits))


def _sample(members: Sequence[Result]) -> Sample:
    kept = {m.seed: read_query_ap(m.folder, m.direction) for m in members}
    return Sample(
        {m.seed: m.map_all for m in members},
        {seed: values for seed, values in kept.items() if values is not None},
        ";".join(sorted({measured_rows(m.folder) or m.split_hash for m in members})),
    )


def _compared(rows: Sequence[Row], samples: Sequence[Sample]) -> list[Row]:
    columns: dict[tuple[str, str, int], list[int]] = {}
    for index, row in enumerate(rows):
        columns.setdefault((row.dataset, row.direction, row.bits), []).append(index)
    compared = list(rows)
    for members in columns.values():
        verdicts = against_best([samples[i] for i in members])
        for i, verdict in zip(members, verdicts, strict=True):
            compared[i] = dataclasses.replace(
                rows[i], p_seeds=verdict.p_seeds, p_queries=verdict.p_queries, alike=verdict.alike
            )
    return compared


def rank_methods(rows: Sequence[Row]) -> Ranking | None:
    """Return the ranking over datasets, by mAP averaged over what all methods of a dataset have."""
    cells: dict[str, dict[str, dict[tuple[str, int], float]]] = {}
    for row in rows:
        methods = cells.setdefault(row.dataset, {})
        methods.setdefault(row.label, {})[row.direction, row.bits] = row.mean
    everywhere = set.intersection(*(set(methods) for methods in cells.values())) if cells else set()
    scores: dict[str, dict[str, float]] = {}
    for dataset, methods in cells.items():
        own = {name: methods[name] for name in everywhere}
        common = set.intersection(*(set(values) for values in own.values())) if own else set()
        if common:
            scores[dataset] = {
                name: statistics.fmean(values[key] for key in sorted(common))
                for name, values in own.items()
            }
    return ranking(scores)


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
        console.print(f"split {', '.join(splits)}; expected over tie orders", style="dim")
        if any(r.alike for r in chosen):
            console.print(
                "≈ not distinguishable from the best: paired t tests over seeds and queries, "
                "5 %, Holm's correction", style="dim",
            )  # fmt: skip
        _print_zero_shot(console, [r for r in chosen if r.all_classes is not None])
        console.print()


def _print_zero_shot(console: Console, rows: Sequence[Row]) -> None:
    """Print what else is measured of zero-shot runs, by bit length, if there are any."""
    from rich.table import Table

    if not rows:
        return
    table = Table(
        title=f"{rows[0].dataset}  {rows[0].direction}  zero-shot mAP@all (mean ± std over seeds)"
    )
    table.add_column("bits", justify="right")
    table.add_column("method")
    for heading in NAMES.values():
        table.add_column(heading, justify="right")
    for bits in sorted({r.bits for r in rows}):
        own = sorted((r for r in rows if r.bits == bits), key=lambda r: -(r.all_classes or 0))
        names = _names(rows)
        for row in own:
            cells = [_zero_shot_cell(row, own, measure) for measure in NAMES]
            table.add_row(str(bits), names[row].replace("[", r"\["), *cells)
        table.add_section()
    console.print(table)
    console.print(NOTE, style="dim")


def _zero_shot_cell(row: Row, column: Sequence[Row], measure: str) -> str:
    mean, std = getattr(row, measure), getattr(row, f"{measure}_std")
    if mean is None:
        return "–"
    values = (getattr(other, measure) for other in column)
    return _score(mean, std, mean == max(value for value in values if value is not None))


def _names(rows: Sequence[Row]) -> dict[Row, str]:
    """Return what to call each row: with its encoder where there are several."""
    several = len({r.backbone for r in rows}) > 1
    return {
        r: " ".join(p for p in (r.label, f"[{r.backbone}]" if several else "") if p) for r in rows
    }


def _score(mean: float, std: float | None, best: bool, mark: str = "") -> str:
    text = f"{mean:.4f}" + (f" ± {std:.4f}" if std is not None else "") + mark
    return f"[bold]{text}[/bold]" if best else text


def _lines(rows: Sequence[Row], bits: Sequence[int]) -> list[list[str]]:
    best = {k: max((r.mean for r in rows if r.bits == k), default=0.0) for k in bits}
    by_name: dict[str, dict[int, Row]] = {}
    for row, name in _names(rows).items():
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
    return _score(row.mean, row.std, row.mean == best, " ≈" if row.alike else "")


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


def print_ranks(found: Ranking) -> None:
    """Print average ranks over datasets, and which are not distinguishable."""
    from rich.console import Console

    console = Console(width=None if Console().is_terminal else 120)
    listed = ", ".join(f"{name} {rank:.2f}" for name, rank in found.ranks.items())
    friedman = "" if found.p is None else f"; Friedman p {found.p:.3g}"
    console.print(f"average rank over {found.datasets} datasets: {listed}", highlight=False)
    console.print(
        f"critical difference {found.difference:.2f} (Nemenyi, 5 %){friedman}", style="dim"
    )
    for group in found.groups:
        console.print(f"≈ {', '.join(group)}", style="dim", highlight=False)


def plot_ranks(found: Ranking, folder: Path) -> Path:
    """Write the critical-difference diagram as PNG."""
    from utils.plots import rank_plot

    path = folder / "ranks.png"
    title = f"average rank over {found.datasets} datasets, by mAP"
    rank_plot(found.ranks, found.groups, found.difference, path, title)
    return path
