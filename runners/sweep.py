"""Sweeps: a grid of runs from one YAML, drained one after the other or by several processes.

::

    grid: {method: [dcmht, dsph, itq], dataset: [flickr8k], bits: [16, 32, 64], seed: [0, 1, 2]}
    set: {runner.epochs: 30}                      # for every run
    overrides:                                    # for some: the first keys choose, the rest is set
      - {where: {method: itq}, set: {seed: 0}}    # runs that become equal are run once
    output: runs/flickr8k
    workers: 2                                    # processes side by side; 1 = in this process

``grid`` may also be a list of such grids, whose runs are added up.

A run that is done is not run again, a run that was killed resumes, a run that fails does not stop
the others.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import schema
from common.config import RunConfig, compose_layers
from common.layers import Layer, config_file, parse_overrides, read_layer
from common.run_store import RunFolder
from utils.errors import UserError
from utils.progress import progress_bar

log = logging.getLogger("hashing")


@dataclasses.dataclass(frozen=True)
class Override:
    """Settings for the runs whose grid values equal those of ``where``."""

    where: dict[str, Any]
    set: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class SweepFile:
    """Schema of a sweep file; keys of grid and set are dotted config keys."""

    grid: dict[str, Any] | list[dict[str, Any]]
    set: dict[str, Any] = dataclasses.field(default_factory=dict)
    overrides: list[Override] = dataclasses.field(default_factory=list)
    output: str = "runs"
    workers: int = 1
    plugins: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one run of a sweep ended: ``done``, ``skipped`` (was done before) or ``failed``."""

    config: RunConfig
    state: str
    reason: str = ""


def sweep_file(name: str) -> Path:
    """Return the file that ``name`` means: a path, or a name in ``configs/sweep``."""
    path = Path(name)
    return path if path.suffix in (".yaml", ".yml") or path.exists() else config_file("sweep", name)


def read_sweep(path: Path) -> SweepFile:
    """Read and check a sweep file.

    Raises:
        UserError: unknown keys, an empty grid, no lists.
    """
    layer = read_layer(path)
    sweep = schema.build(SweepFile, layer.values, "", lambda _: str(path))
    for grid in grids(sweep) or [{}]:
        if not grid:
            raise UserError(f"{path}: grid is empty; give lists of values, e.g. bits: [16, 32].")
        for key, values in grid.items():
            if not isinstance(values, list) or not values:
                raise UserError(
                    f"{path}: grid.{key}={values!r} is not accepted; a list of values is needed."
                )
    return sweep


def grids(sweep: SweepFile) -> list[dict[str, Any]]:
    """Return the grids of a sweep, one or several, as a list."""
    return sweep.grid if isinstance(sweep.grid, list) else [sweep.grid]


def expand(
    sweep: SweepFile, path: Path, extra: Sequence[str] = (), output: str | None = None
) -> list[RunConfig]:
    """Return the configurations of all runs of the grid, equal ones once, in grid order.

    Args:
        sweep: the file's content.
        path: the file, for messages.
        extra: ``key=value`` words of the command line, for every run.
        output: folder for the runs instead of the file's.
    """
    runs: dict[str, RunConfig] = {}
    for point in _points(sweep):
        words = {**point, **sweep.set}
        for override in sweep.overrides:
            if all(point.get(key, words.get(key)) == v for key, v in override.where.items()):
                words.update(override.set)
        nested = [
            Layer(str(path), _nested({**words, "plugins": sweep.plugins})),
            Layer("command line", parse_overrides(extra)),
            Layer("command line", {"output": output or sweep.output}),
        ]
        config = compose_layers(nested)
        runs.setdefault(config.run_name, config)
    return list(runs.values())


def _points(sweep: SweepFile) -> Iterator[dict[str, Any]]:
    for grid in grids(sweep):
        for values in itertools.product(*grid.values()):
            yield dict(zip(grid, values, strict=True))


def _nested(words: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted keys as nested mappings; ``dataset`` and ``dataset.root`` may both be there."""
    nested: dict[str, Any] = {}
    for key, value in sorted(words.items(), key=lambda item: item[0].count(".")):
        part = parse_overrides([f"{key}=null"])
        _put(part, key.split("."), value)
        _join(nested, part)
    return nested


def _put(nested: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        nested = nested[key]
    nested[keys[-1]] = value


def _join(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        present = into.get(key)
        if isinstance(value, Mapping) and isinstance(present, str):
            present = {"config" if key in ("dataset", "backbone") else "name": present}
            into[key] = present
        if isinstance(value, Mapping) and isinstance(present, dict):
            _join(present, value)
        else:
            into[key] = value


def run_sweep(configs: Sequence[RunConfig], workers: int = 1) -> list[Outcome]:
    """Run what is not done yet; ``workers`` > 1 processes share the CPU cores evenly."""
    if workers < 1:
        raise UserError(f"workers={workers} is not accepted; at least 1 is needed.")
    outcomes = {c.run_name: Outcome(c, "skipped") for c in configs if _folder(c).is_done}
    left = [config for config in configs if config.run_name not in outcomes]
    log.info("%d runs: %d done before, %d to do", len(configs), len(outcomes), len(left))
    start = time.perf_counter()
    with progress_bar("sweep", len(left)) as advance:
        results = _in_processes(left, workers) if workers > 1 else map(_attempt, left)
        for number, (name, state, reason) in enumerate(results, 1):
            config = next(c for c in left if c.run_name == name)
            outcomes[name] = Outcome(config, state, reason)
            spent = time.perf_counter() - start
            left_s = spent / number * (len(left) - number)
            log.info(
                "[%d/%d] %s %s%s (%.0f s left)", number, len(left), name, state,
                f": {reason}" if reason else "", left_s,
            )  # fmt: skip
            advance(1)
    return [outcomes[config.run_name] for config in configs]


def _folder(config: RunConfig) -> RunFolder:
    return RunFolder(Path(config.output) / config.run_name)


def _attempt(config: RunConfig) -> tuple[str, str, str]:
    """Run one configuration; whatever goes wrong is its outcome, not the sweep's end."""
    from runners.base import run_config

    try:
        run_config(config)
    except UserError as error:
        return config.run_name, "failed", str(error)
    except Exception as error:  # noqa: BLE001 - the sweep goes on; the run's folder has the log
        return config.run_name, "failed", f"{type(error).__name__}: {error}"
    return config.run_name, "done", ""


def _attempt_resolved(resolved: dict[str, Any]) -> tuple[str, str, str]:
    """Compose a configuration again in a worker process and run it."""
    return _attempt(compose_layers([Layer("sweep", resolved)]))


def _start_worker(threads: int) -> None:
    import torch

    from utils.logs import log_to_stderr

    torch.set_num_threads(threads)
    log_to_stderr(logging.WARNING)


def _in_processes(configs: Sequence[RunConfig], workers: int) -> Any:
    threads = max((os.cpu_count() or 1) // workers, 1)
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, str(threads))  # read by the children when they start
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        workers, context, initializer=_start_worker, initargs=(threads,)
    ) as pool:
        futures = {pool.submit(_attempt_resolved, dict(c.resolved)): c.run_name for c in configs}
        for future in concurrent.futures.as_completed(futures):
            try:
                yield future.result()
            except concurrent.futures.BrokenExecutor:
                reason = "a worker process died (killed, or out of memory); sweep again to go on"
                yield futures[future], "failed", reason
