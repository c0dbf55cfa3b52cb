"""Finished runs as rows: mean ± std over seeds by method, bit length and direction, and tests."""

from __future__ import annotations

import csv
import dataclasses
import logging
import operator
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from common.config import schema
from common.config.former_keys import present_image_keys
from common.storage.run_files import read_config
from common.storage.run_folder import RunFolder
from runners.evaluation.query_ap import measured_rows, read_query_ap
from runners.evaluation.selection import chosen_on
from runners.results.significance import Ranking, Sample, against_best, half_width, ranking
from runners.results.variants import Variant, name_variants
from utils.errors import UserError
from utils.files import atomic_path
from utils.shown import csv_cell

log = logging.getLogger("hashing")

ZERO_SHOT = {
    "all_classes": "all classes", "unseen_only": "unseen only", "harmonic": "harmonic mean",
}  # fmt: skip
"""Zero-shot measure → heading, all of mAP@all; see :mod:`runners.evaluation.zero_shot`."""
_NAMED = 5  # damaged runs
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Result:
    """One run and direction.

    Attributes:
        config: the run's ``config.yaml``.
        metrics: its ``metrics.json``.
        report: the part of it for this direction.
        zero_shot: "all classes, mAP@all" and further measures and cuts → mAP; empty where they
            do not apply.
    """

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
    split_hash: str
    train_s: float
    folder: Path
    report: dict[str, Any]
    metrics: dict[str, Any]
    config: dict[str, Any]
    variant: Variant
    zero_shot: dict[str, float]
    several_encoders: bool = False

    @property
    def name(self) -> str:
        """Method, variant, and the encoder where the dataset has been run with several."""
        return _name(self.method, self.variant.label, self.several_encoders, self.backbone)


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
        release_measures: ``eval.measure`` → mean over seeds, of those that all seeds have.
        variant, settings: short label of the recipe, and all that was set and differs; see
            :mod:`runners.results.variants`.
        results: of the runs, in the order of their seeds.
        several_encoders: whether the dataset has been run with several.
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
    release_measures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    settings: tuple[str, ...] = ()
    # no columns of the CSV, and not compared:
    results: tuple[Result, ...] = dataclasses.field(default=(), compare=False, repr=False)
    several_encoders: bool = dataclasses.field(default=False, compare=False)

    @property
    def name(self) -> str:
        """Method, variant, and the encoder where the dataset has been run with several."""
        return _name(self.method, self.variant, self.several_encoders, self.backbone)

    def over_seeds(self, *keys: str) -> tuple[float | None, float | None]:
        """Return mean and deviation of a number in the reports of this direction."""
        return mean_and_std(_at(result.report, keys) for result in self.results)

    def costs(self, *keys: str) -> list[float | None]:
        """Return a number in each run's ``metrics.json``, None where it is missing."""
        return [_at(result.metrics, keys) for result in self.results]


def grouped(items: Iterable[T], *fields: str) -> dict[Any, list[T]]:
    """Return the items by their values of the fields, in the order given."""
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(operator.attrgetter(*fields)(item), []).append(item)
    return groups


def _name(method: str, variant: str, several_encoders: bool, backbone: str) -> str:
    return method + f" ({variant})" * bool(variant) + f" [{backbone}]" * several_encoders


def mean_and_std(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    """Return mean and sample deviation (ddof 1); None where a value is missing, or of one value.

    >>> mean_and_std([0.5, None]), mean_and_std([0.25])
    ((None, None), (0.25, None))
    """
    values = list(values)
    numbers = [value for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return None, None
    return statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None


def _at(report: Any, keys: Sequence[str]) -> float | None:
    for key in keys:
        report = (report or {}).get(key)
    return None if report is None else float(report)


def find_runs(root: str | Path) -> list[RunFolder]:
    """Return the finished runs below ``root``, in order of their names; no runs in miniature.

    Runs that say so and are damaged are left out, and named in the log.

    Raises:
        UserError: no such folder, or no finished run in it.
    """
    path = Path(root)
    if not path.is_dir():
        raise UserError(f"'{root}' is not a folder; give the output folder of a sweep or train.")
    files = (p for p in path.rglob("*.json") if p.name in ("metrics.json", "status.json"))
    done, damaged = [], {}
    for folder in map(RunFolder, sorted({p.parent for p in files})):
        status = folder.status()
        if folder.is_smoke or (status and not folder.says_done):
            continue
        reason = folder.damage() if status else "status.json is missing or cannot be read"
        if reason is None:
            done.append(folder)
        else:
            damaged[folder.path] = reason
    _tell_left_out(damaged)
    if not done:
        broken = f" ({len(damaged)} damaged)" if damaged else ""
        raise UserError(
            f"'{root}' holds no finished run{broken}; run train or sweep with output={root}."
        )
    return done


def _tell_left_out(damaged: Mapping[Path, str]) -> None:
    """Log which runs are left out and why; of many, the first ones and the number."""
    for path, reason in list(damaged.items())[:_NAMED]:
        log.warning("left out: '%s', which is damaged: %s", path, reason)
    if len(damaged) > _NAMED:
        log.warning("left out: %d damaged runs in all", len(damaged))
    if damaged:
        log.warning("sweep or train with their settings does damaged runs again")


def collect(folders: Sequence[RunFolder]) -> list[Result]:
    """Return one result per run and direction; damaged runs are left out and named in the log.

    Raises:
        UserError: all are damaged.
    """
    configs, all_metrics, damaged = {}, {}, {}
    for folder in folders:
        try:
            configs[folder.path] = _read_config(folder)
            all_metrics[folder.path] = folder.metrics()
        except UserError as error:
            configs.pop(folder.path, None)
            damaged[folder.path] = str(error)
    _tell_left_out(damaged)
    if damaged and not configs:
        raise UserError(f"No run is whole; the first: {next(iter(damaged.values()))}")
    variants = dict(zip(configs, name_variants(list(configs.values())), strict=True))
    results = [
        result
        for path, metrics in all_metrics.items()
        for result in _results(path, configs[path], metrics, variants[path])
    ]
    encoders = Counter(dataset for dataset, _ in {(r.dataset, r.backbone) for r in results})
    return [dataclasses.replace(r, several_encoders=encoders[r.dataset] > 1) for r in results]


def _read_config(folder: RunFolder) -> dict[str, Any]:
    config = read_config(folder.config_file)
    try:
        config["data"] = present_image_keys(config.get("data", {}), None)
        schema.flat(config)["dataset.config"]
    except (TypeError, AttributeError, KeyError) as error:
        raise UserError(f"'{folder.config_file}' is not of a run ({error}).") from error
    return config


def _results(
    path: Path, config: dict[str, Any], metrics: dict[str, Any], variant: Variant
) -> Iterator[Result]:
    """Yield the result of each direction of a run."""
    run = metrics["run"]
    zero_shot = (metrics.get("zero_shot") or {}).get("directions", {})
    for direction, report in metrics["directions"].items():
        value = report["map"].get("all") or next(iter(report["map"].values()))
        yield Result(
            dataset=run["dataset"], method=run["method"], bits=run["bits"],
            seed=run["seed"], direction=direction, backbone=run["backbone"],
            map_all=value["expected"], worst=value["worst"], best=value["best"],
            selected_on=chosen_on(metrics["protocol"]["selected"]),
            split_hash=metrics["split_hash"],
            train_s=metrics["timing"].get("train_s", 0.0), folder=path,
            report=report, metrics=metrics, config=config, variant=variant,
            zero_shot=zero_shot_values(zero_shot.get(direction, {})),
        )  # fmt: skip


def zero_shot_values(report: Mapping[str, Any]) -> dict[str, float]:
    """Return "measure, mAP@cut" → value of one direction of ``metrics["zero_shot"]``."""
    generalised = report.get("generalised", {})
    bands = {
        "all classes": report.get("all_classes", {}),
        "unseen only": report.get("unseen_only", {}),
        "generalised, unseen": generalised.get("unseen", {}),
        "generalised, seen": generalised.get("seen", {}),
    }
    values = {
        f"{name}, mAP@{cut}": band["expected"]
        for name, cuts in bands.items()
        for cut, band in cuts.items()
    }
    harmonic = generalised.get("harmonic", {}).items()
    return values | {f"harmonic mean, mAP@{cut}": value for cut, value in harmonic}


def measures_of(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the measures of ``ZERO_SHOT`` that a direction of ``metrics["zero_shot"]`` has."""
    values = zero_shot_values(report)
    names = {key: f"{heading}, mAP@all" for key, heading in ZERO_SHOT.items()}
    return {key: values[name] for key, name in names.items() if name in values}


def summarize(results: Sequence[Result]) -> list[Row]:
    """Return mean and sample deviation (ddof 1) over seeds, and how each compares with the best."""
    rows = []
    fields = ("dataset", "method", "backbone", "variant.label", "bits", "direction")
    groups: dict[tuple[str, str, str, str, int, str], list[Result]] = grouped(results, *fields)
    for key, members in groups.items():
        members = _one_of_each_seed(members)
        values = [m.map_all for m in members]
        zero_shot: dict[str, Any] = {}
        for measure, heading in ZERO_SHOT.items():
            pair = mean_and_std(m.zero_shot.get(f"{heading}, mAP@all") for m in members)
            zero_shot[measure], zero_shot[f"{measure}_std"] = pair
        row = Row(
            *key,
            mean=statistics.fmean(values),
            std=mean_and_std(values)[1],
            seeds=len(values),
            tie_band=max(m.best - m.worst for m in members),
            selected_on=", ".join(sorted({m.selected_on for m in members})),
            train_s=statistics.fmean(m.train_s for m in members),
            split_hashes=tuple(sorted({m.split_hash for m in members})),
            ci95=half_width(values),
            **zero_shot,
            release_measures=_release_measures(members),
            results=tuple(members),
            settings=members[0].variant.settings,
            several_encoders=members[0].several_encoders,
        )
        rows.append(row)
    compared = []
    for column in grouped(rows, "dataset", "direction", "bits").values():
        verdicts = against_best([_sample(row) for row in column])
        for row, verdict in zip(column, verdicts, strict=True):
            tests = {key: getattr(verdict, key) for key in ("p_seeds", "p_queries", "alike")}
            compared.append(dataclasses.replace(row, **tests))
    order = operator.attrgetter("dataset", "direction", "method", "variant", "bits")
    return sorted(compared, key=order)


def _one_of_each_seed(runs: Sequence[Result]) -> list[Result]:
    """Return the first run of each seed, in their order; the log names how many are left out."""
    by_seed = grouped(sorted(runs, key=lambda r: (r.seed, str(r.folder))), "seed")
    if repeated := len(runs) - len(by_seed):
        log.warning(
            "left out: %d of %d runs of %s, %d bits, which repeat a seed with the same settings",
            repeated, len(runs), runs[0].name, runs[0].bits,
        )  # fmt: skip
    return [same[0] for same in by_seed.values()]


def _release_measures(members: Sequence[Result]) -> dict[str, float]:
    """Return the means over seeds of ``eval.measure``, where no seed lacks one."""
    names = dict.fromkeys(name for m in members for name in m.report.get("compat", {}))
    means = {n: mean_and_std(_at(m.report, ("compat", n)) for m in members)[0] for n in names}
    return {name: mean for name, mean in means.items() if mean is not None}


def _sample(row: Row) -> Sample:
    queries = {r.seed: read_query_ap(r.folder, r.direction) for r in row.results}
    return Sample(
        {r.seed: r.map_all for r in row.results},
        {seed: values for seed, values in queries.items() if values is not None},
        ";".join(sorted({measured_rows(r.folder) or r.split_hash for r in row.results})),
    )


def rank_methods(rows: Sequence[Row]) -> Ranking | None:
    """Return the ranking over datasets, by mAP averaged over what all methods of a dataset have."""
    cells: dict[str, dict[str, dict[tuple[str, int], float]]] = {}
    for row in rows:
        methods = cells.setdefault(row.dataset, {})
        methods.setdefault(row.name, {})[row.direction, row.bits] = row.mean
    everywhere = set.intersection(*(set(methods) for methods in cells.values())) if cells else set()
    if not everywhere:
        return None
    scores: dict[str, dict[str, float]] = {}
    for dataset, methods in cells.items():
        common = set.intersection(*(set(methods[name]) for name in everywhere))
        if common:
            scores[dataset] = {
                name: statistics.fmean(methods[name][key] for key in sorted(common))
                for name in everywhere
            }
    return ranking(scores)


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write the summary rows as CSV, atomically."""
    names = [field.name for field in dataclasses.fields(Row) if field.compare]
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for row in rows:
            writer.writerow([_csv_value(getattr(row, name)) for name in names])


def _csv_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        value = tuple(f"{name}={number}" for name, number in value.items())
    return csv_cell(";".join(value) if isinstance(value, tuple) else value)
