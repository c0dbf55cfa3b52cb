"""Sweeps: a grid of runs from one YAML, drained by one process or by many.

::

    grid: {method: [dcmht, dsph, itq], dataset: [flickr8k], bits: [16, 32, 64], seed: [0, 1, 2]}
    set: {runner.epochs: 30}                      # for every run
    overrides:                                    # for some: the first keys choose, the rest is set
      - {where: {method: itq}, set: {seed: 0}}    # runs that become equal are run once
    output: runs/flickr8k
    workers: 2                                    # side by side; 1 = here; auto = one for each GPU
    retries: 1                                    # of a run that fails, or whose worker dies
    lease_s: 90                                   # without a beat: a worker elsewhere is gone
    hang_after_s: 3600                            # without a step: a worker is stuck; 0 = never
    launch:                                       # options of the launchers
      local: {slots_per_gpu: 1, pin_cpus: true}
      ray: {address: auto, cpus: 4, gpus: 0.5}
      submitit: {minutes: 600, cpus: 8, gpus: 1, slurm: {slurm_partition: gpu}}

``grid`` may also be a list of such grids, whose runs are added up.

A run that is done is not run again, a run that was killed resumes, a run that fails does not stop
the others. The same sweep may be started on several hosts that share the output folder: each takes
what nobody has (:mod:`runners.sweeps.queue`).
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
from common.config.layers import Layer, config_file, parse_overrides, read_layer
from common.config.run_config import RunConfig, compose_layers
from runners.sweeps.launchers.base import Launcher, supervise
from runners.sweeps.queue import Outcome, Rules, Session, drain, folder_of
from runners.sweeps.status import forget_failures, plan, together
from utils.errors import UserError, unknown_name
from utils.progress import progress_bar

log = logging.getLogger("hashing")
DEFAULT_RULES = Rules()


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
    workers: int | Literal["auto"] = 1
    retries: int = DEFAULT_RULES.retries
    lease_s: float = DEFAULT_RULES.lease_s
    hang_after_s: float = DEFAULT_RULES.hang_after_s
    launch: dict[str, Any] = dataclasses.field(default_factory=dict)
    plugins: list[str] = dataclasses.field(default_factory=list)

    @property
    def rules(self) -> Rules:
        """How workers treat its runs."""
        return Rules(self.retries, self.lease_s, self.hang_after_s)


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
            Layer(str(path), {"plugins": sweep.plugins}, path),
            Layer(str(path), _nested(words), path),
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
        part: Any = value
        for name in reversed(key.split(".")):
            part = {name: part}
        _join(nested, part)
    return nested


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


def run_sweep(
    configs: Sequence[RunConfig], workers: int | Literal["auto"] = 1, *, launcher: str = "local",
    rules: Rules = DEFAULT_RULES, launch: Mapping[str, Any] | None = None, again: bool = False,
) -> list[Outcome]:  # fmt: skip
    """Run what is not done yet; return how every run ended, in their order.

    Args:
        configs: the runs.
        workers: side by side; 1 with the local launcher is this process, ``auto`` is one for each
            slot of the GPUs (1 where there is none).
        launcher: ``local``, ``ray`` or ``submitit``.
        rules: how often a run is tried again, and when a worker counts as gone.
        launch: options by launcher.
        again: try failed runs again that were given up.

    Raises:
        UserError: options that are not accepted, a library that is missing, a full disk.
        KeyboardInterrupt: after Ctrl-C, when the workers have ended.
    """
    if workers != "auto" and workers < 1:
        raise UserError(f"workers={workers} is not accepted; at least 1 is needed, or auto.")
    states = plan(configs, rules.retries, again)
    outcomes = {
        s.config.run_name: Outcome(s.config, "skipped" if s.state == "done" else "failed", s.reason)
        for s in states
        if not s.is_open
    }
    left = [s.config for s in states if s.is_open]
    given_up = sum(outcome.state == "failed" for outcome in outcomes.values())
    log.info(
        "%d runs: %d done before, %d to do%s", len(configs), len(outcomes) - given_up, len(left),
        f", {given_up} failed before (--retry-failed tries them again)" if given_up else "",
    )  # fmt: skip
    if not left:
        return [outcomes[s.config.run_name] for s in states]
    if again:
        for config in left:
            forget_failures(folder_of(config))
    session = Session.create(Path(left[0].output), together(left), rules)
    by_name = {config.run_name: config for config in left}
    try:
        with _reporting(session, by_name, outcomes) as ended:
            if launcher == "local" and workers == 1:
                drain(session, ended, left)
            else:
                supervise(make_launcher(launcher, session, left, workers, launch or {}), ended)
        reason = session.stopped()
        if reason is not None and len(outcomes) < len(states):
            raise UserError(f"{reason}; the runs that have not ended are resumed then.")
    finally:
        session.remove()
    return [outcomes[s.config.run_name] for s in states]


@contextlib.contextmanager
def _reporting(
    session: Session, runs: Mapping[str, RunConfig], outcomes: dict[str, Outcome]
) -> Iterator[Callable[[str], None]]:
    """Yield what is to be called with the name of each run that has ended."""
    start, total = time.perf_counter(), len(runs)
    numbers = itertools.count(1)
    with progress_bar("sweep", total) as advance:

        def ended(name: str) -> None:
            state, reason = session.outcome(name)
            outcomes[name] = Outcome(runs[name], state, reason)
            number = next(numbers)
            left_s = (time.perf_counter() - start) / number * (total - number)
            told = f": {reason}" if reason else ""
            log.info("[%d/%d] %s %s%s (%.0f s left)", number, total, name, state, told, left_s)
            advance(1)

        yield ended


def make_launcher(
    name: str, session: Session, configs: Sequence[RunConfig], workers: int | Literal["auto"],
    launch: Mapping[str, Any],
) -> Launcher:  # fmt: skip
    """Return the launcher ``name`` with its part of ``launch``.

    Raises:
        UserError: an unknown launcher or option, a library that is missing.
    """
    from runners.sweeps.launchers.local import LocalLauncher, LocalOptions
    from runners.sweeps.launchers.on_ray import RayLauncher, RayOptions
    from runners.sweeps.launchers.on_submitit import SubmititLauncher, SubmititOptions

    known: dict[str, tuple[Any, type]] = {
        "local": (LocalLauncher, LocalOptions),
        "ray": (RayLauncher, RayOptions),
        "submitit": (SubmititLauncher, SubmititOptions),
    }
    for given in (name, *launch):
        if given not in known:
            raise unknown_name("launcher", given, known)
    make, options = known[name]
    values = schema.convert(dict, launch.get(name) or {}, f"launch.{name}", lambda _: "sweep file")
    chosen: Any = schema.build(options, values, f"launch.{name}", lambda _: "sweep file")
    gpus = _gpus() if any(_wants_gpu(config) for config in configs) else 0
    slots = getattr(chosen, "slots_per_gpu", 1) or 1
    return make(session, max(gpus * slots, 1) if workers == "auto" else workers, chosen, gpus)


def _wants_gpu(config: RunConfig) -> bool:
    return getattr(config.runner.config, "device", "auto") != "cpu"


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
