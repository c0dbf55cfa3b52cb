"""Sweeps: a grid of runs from one YAML file, executed by one process or by many.

::

    grid: {method: [dcmht, dsph, itq], dataset: [flickr8k], bits: [16, 32, 64], seed: [0, 1, 2]}
    set: {runner.epochs: 30}                      # for every run
    overrides:                                    # for the runs that match ``where``
      - {where: {method: [itq, "ls*"]}, set: {seed: 0}}    # equal runs are run once
    output: runs/flickr8k
    workers: 2                                    # in parallel; 1 = here; auto = one per GPU
    retries: 1                                    # of a run that fails or whose worker dies
    lease_s: 90                                   # without a renewal: a worker elsewhere is lost
    hang_after_s: 3600                            # without a heartbeat: it is stuck; 0 = never
    launch:                                       # options of the launchers
      local: {slots_per_gpu: 1, pin_cpus: true}
      ray: {address: auto, cpus: 4, gpus: 0.5}
      submitit: {minutes: 600, cpus: 8, gpus: 1, slurm: {slurm_partition: gpu}}

``grid`` may also be a list of grids, whose runs are concatenated. A sweep that repeats a paper's
table says so under ``paper`` (:class:`PaperTable`).

A run that is done is skipped, a run that was killed is resumed, a run that fails does not stop the
others. The same sweep may be started on several hosts that share the output folder: each worker
takes runs that no other has (:mod:`runners.sweeps.queue`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from common.config import schema
from common.config.layers import (
    Layer,
    config_file,
    merge_section,
    parse_overrides,
    read_layer,
)
from common.config.run_config import RunConfig, compose_layers
from runners.sweeps.launchers.base import Launcher, supervise
from runners.sweeps.overrides import Override, applied, check_overrides
from runners.sweeps.queue import Outcome, Queue, Rules, folder_of, run_queue
from runners.sweeps.status import group_by_data, own_seconds, statuses
from utils.errors import UserError, unknown_name
from utils.progress import duration, progress_bar
from utils.shown import brief

log = logging.getLogger("hashing")
DEFAULT_RULES = Rules()
MOST_WORKERS = 9999


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """Section ``paper`` of a sweep that repeats a released recipe.

    Attributes:
        recipe: name of a run's recipe; ``{method}`` and ``{set}`` stand for those of the run.
        methods: method of ours → its name in the recipe's; others keep theirs.
        sets: dataset of ours, or dataset and split with a slash → its name in the recipe's;
            others keep theirs.
        published: ``paper_or_repo`` of docs/published.csv → method there → method of ours.
        unknown: keys of the recipe that the release leaves open; they are compared with nothing.
    """

    recipe: str
    methods: dict[str, str] = dataclasses.field(default_factory=dict)
    sets: dict[str, str] = dataclasses.field(default_factory=dict)
    published: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    unknown: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class SweepFile:
    """Schema of a sweep file; keys of ``grid`` and ``set`` are dotted config keys."""

    grid: dict[str, Any] | list[dict[str, Any]]
    set: dict[str, Any] = dataclasses.field(default_factory=dict)
    overrides: list[Override] = dataclasses.field(default_factory=list)
    output: str = "runs"
    workers: int | Literal["auto"] = 1
    retries: int = DEFAULT_RULES.retries
    lease_s: float = DEFAULT_RULES.lease_s
    hang_after_s: float = DEFAULT_RULES.hang_after_s
    launch: dict[str, Any] = dataclasses.field(default_factory=dict)
    plugins: list[str] = dataclasses.field(default_factory=list)
    paper: PaperTable | None = None

    @property
    def rules(self) -> Rules:
        """How its workers treat runs."""
        return Rules(self.retries, self.lease_s, self.hang_after_s)


def sweep_file(name: str) -> Path:
    """Return the file of a sweep: ``name`` is a path or a name in ``configs/sweep``."""
    path = Path(name)
    return path if path.suffix in (".yaml", ".yml") or path.exists() else config_file("sweep", name)


def read_sweep(path: Path) -> SweepFile:
    """Read and check a sweep file.

    Raises:
        UserError: unknown keys, an empty grid, values that are no lists, workers, rules or options
            of launchers that a start would refuse, a ``where`` that chooses no run.
    """
    layer = read_layer(path)
    sweep = schema.build(SweepFile, layer.values, "", lambda _: str(path))
    _ = sweep.rules  # refused now, not when the first run is taken
    for grid in grids(sweep) or [{}]:
        if not grid:
            raise UserError(f"{path}: grid is empty; give lists of values, e.g. bits: [16, 32].")
        for key, values in grid.items():
            if not isinstance(values, list) or not values:
                given = f"grid.{key}={brief(values)}"
                raise UserError(f"{path}: {given} is not accepted; a list of values is needed.")
    check_workers(sweep.workers)
    check_launch(sweep.launch, path)
    check_overrides(list(_points(sweep)), sweep.set, sweep.overrides, path)
    return sweep


def check_workers(workers: int | str) -> None:
    """Refuse a number of workers that is none.

    Raises:
        UserError: less than 1 or more than ``MOST_WORKERS``.
    """
    if not isinstance(workers, str) and not 1 <= workers <= MOST_WORKERS:
        raise UserError(
            f"workers={workers} is not accepted; 1 to {MOST_WORKERS} are needed, or auto."
        )


def grids(sweep: SweepFile) -> list[dict[str, Any]]:
    """Return the grids of a sweep as a list."""
    return sweep.grid if isinstance(sweep.grid, list) else [sweep.grid]


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep, and the positions of the overrides that chose it."""

    config: RunConfig
    overrides: tuple[int, ...]


def expand(
    sweep: SweepFile, path: Path, extra: Sequence[str] = (), output: str | None = None
) -> list[RunConfig]:
    """Return the configurations of :func:`planned`."""
    return [run.config for run in planned(sweep, path, extra, output)]


def planned(
    sweep: SweepFile, path: Path, extra: Sequence[str] = (), output: str | None = None
) -> list[PlannedRun]:
    """Return the distinct runs of all grids, in grid order.

    ``extra`` are ``key=value`` words of the command line, for every run; ``output`` is a folder for
    the runs instead of the file's.
    """
    runs: dict[str, PlannedRun] = {}
    for point in applied(list(_points(sweep)), sweep.set, sweep.overrides):
        layers = [
            Layer(str(path), {"plugins": sweep.plugins}, path),
            Layer(str(path), _nested(point.words), path),
            Layer("command line", parse_overrides(extra)),
            Layer("command line", {"output": output or sweep.output}),
        ]
        config = compose_layers(layers)
        same = runs.get(config.run_name, PlannedRun(config, ()))
        chosen = tuple(sorted({*same.overrides, *point.overrides}))
        runs[config.run_name] = dataclasses.replace(same, overrides=chosen)
    return list(runs.values())


def _points(sweep: SweepFile) -> Iterator[dict[str, Any]]:
    for grid in grids(sweep):
        for values in itertools.product(*grid.values()):
            yield dict(zip(grid, values, strict=True))


def _nested(words: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted keys as nested mappings; both ``dataset`` and ``dataset.root`` may occur."""
    nested: dict[str, Any] = {}
    for key, value in sorted(words.items(), key=lambda item: item[0].count(".")):
        is_file = key in ("dataset", "backbone") and isinstance(value, str)
        part: Any = {"config": value} if is_file else value
        for name in reversed(key.split(".")):
            part = {name: part}
        merge_section(nested, part)
    return nested


def run_sweep(
    configs: Sequence[RunConfig], workers: int | Literal["auto"] = 1, *, launcher: str = "local",
    rules: Rules = DEFAULT_RULES, launch: Mapping[str, Any] | None = None, again: bool = False,
) -> list[Outcome]:  # fmt: skip
    """Execute the runs that are not done; return the outcomes of all, in their order.

    One worker with the ``local`` launcher is this process; others are ``ray`` and ``submitit``.
    ``auto`` means a worker for each slot of the GPUs (1 without a GPU). ``launch`` has the options
    of each launcher; with ``again``, runs that failed too often are retried as well.

    Raises:
        UserError: invalid options, a missing library, a full disk.
        KeyboardInterrupt: after Ctrl-C, when the workers have ended.
    """
    check_workers(workers)
    states = statuses(configs, rules.retries, again)
    outcomes = {
        s.config.run_name: Outcome(s.config, "skipped" if s.state == "done" else "failed", s.reason)
        for s in states
        if not s.is_open
    }
    remaining = [s.config for s in states if s.is_open]
    failed = sum(outcome.state == "failed" for outcome in outcomes.values())
    log.info(
        "%d runs: %d done before, %d to do%s", len(configs), len(outcomes) - failed, len(remaining),
        f", {failed} failed before (--retry-failed tries them again)" if failed else "",
    )  # fmt: skip
    if not remaining:
        return [outcomes[s.config.run_name] for s in states]
    for folder in map(folder_of, remaining if again else ()):
        if folder.status().get("state") == "failed":
            folder.set_status("failed", failures=0, final=False)
    queue = Queue.create(Path(remaining[0].output), group_by_data(remaining), rules)
    by_name = {config.run_name: config for config in remaining}
    try:
        with _reporting(queue, by_name, outcomes) as ended:
            if launcher == "local" and workers == 1:
                run_queue(queue, ended, remaining)
            else:
                supervise(make_launcher(launcher, queue, remaining, workers, launch or {}), ended)
        reason = queue.stop_reason()
        if reason is not None and len(outcomes) < len(states):
            raise UserError(f"{reason}; the runs that have not ended are resumed then.")
    finally:
        queue.remove()
    return [outcomes[s.config.run_name] for s in states]


@contextlib.contextmanager
def _reporting(
    queue: Queue, runs: Mapping[str, RunConfig], outcomes: dict[str, Outcome]
) -> Iterator[Callable[[str], None]]:
    """Yield the function to call with the name of each run that has ended."""
    start, total = time.perf_counter(), len(runs)
    numbers = itertools.count(1)
    own_s = all_s = 0.0
    with progress_bar("sweep", total) as advance:

        def ended(name: str) -> None:
            nonlocal own_s, all_s
            state, reason = queue.outcome(name)
            outcomes[name] = Outcome(runs[name], state, reason)
            number = next(numbers)
            status = queue.run_folder(name).status()
            own_s += own_seconds(status) or 0.0
            all_s += status.get("seconds") or 0.0
            share = own_s / all_s if all_s else 1.0  # the rest was made for all runs
            left_s = share * (time.perf_counter() - start) / number * (total - number)
            shown, left = f": {reason}" if reason else "", duration(left_s)
            log.info("[%d/%d] %s %s%s (about %s left)", number, total, name, state, shown, left)
            advance(1)

        yield ended


def _launchers() -> dict[str, tuple[Any, type]]:
    """Return name → class and options of each launcher; their libraries are not imported."""
    from runners.sweeps.launchers.local import LocalLauncher, LocalOptions
    from runners.sweeps.launchers.on_ray import RayLauncher, RayOptions
    from runners.sweeps.launchers.on_submitit import SubmititLauncher, SubmititOptions

    return {
        "local": (LocalLauncher, LocalOptions),
        "ray": (RayLauncher, RayOptions),
        "submitit": (SubmititLauncher, SubmititOptions),
    }


def check_launch(launch: Mapping[str, Any], source: object = "sweep file") -> dict[str, Any]:
    """Return the options of each launcher, those of ``launch`` over the defaults.

    Raises:
        UserError: an unknown launcher or option, or a value that is not accepted.
    """
    launchers = _launchers()
    for name in launch:
        if name not in launchers:
            raise unknown_name("launcher", name, launchers)
    return {name: _options(name, kind, launch, source) for name, (_, kind) in launchers.items()}


def _options(name: str, kind: type, launch: Mapping[str, Any], source: object) -> Any:
    path = f"launch.{name}"
    values = schema.convert(dict, launch.get(name) or {}, path, lambda _: str(source))
    return schema.build(kind, values, path, lambda _: str(source))


def make_launcher(
    name: str, queue: Queue, configs: Sequence[RunConfig], workers: int | Literal["auto"],
    launch: Mapping[str, Any],
) -> Launcher:  # fmt: skip
    """Return the launcher ``name`` with its options from ``launch``.

    Raises:
        UserError: an unknown launcher or option, a missing library.
    """
    import torch

    launchers = _launchers()
    if name not in launchers:
        raise unknown_name("launcher", name, launchers)
    chosen = check_launch(launch)[name]
    devices = {getattr(config.runner.config, "device", "auto") for config in configs}
    gpus = torch.cuda.device_count() if devices != {"cpu"} else 0
    slots = getattr(chosen, "slots_per_gpu", 1) or 1
    create = launchers[name][0]
    return create(queue, max(gpus * slots, 1) if workers == "auto" else workers, chosen, gpus)
