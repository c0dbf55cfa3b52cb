"""The status of a sweep: which runs are done, running, failed or to do, and how long they take."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.config.run_config import RunConfig
from common.storage.leases import Leases
from runners.sweeps.queue import folder_of, is_final_failure
from utils.progress import duration
from utils.terminal import say


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """The status of one run.

    Attributes:
        config: of the run.
        state: ``done``, ``running`` (leased), ``failed`` (not retried), ``to do``,
            ``interrupted`` (will be resumed), ``retry`` (failed, will be retried) or ``damaged``
            (was done, but a file is not whole: will be done again).
        reason: of a failure or damage.
        seconds: duration of a done run without what it made for all (decoded pictures, features),
            or None where it is not recorded.
    """

    config: RunConfig
    state: str
    reason: str = ""
    seconds: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether a worker may have to execute it."""
        return self.state not in ("done", "failed")


def statuses(configs: Sequence[RunConfig], retries: int, again: bool = False) -> list[RunStatus]:
    """Return the status of every run, in order; with ``again``, failed runs are retried."""
    leased = _leased_runs({Path(config.output) for config in configs})
    result = []
    for config in configs:
        folder = folder_of(config)
        status = folder.status()
        state = status.get("state", "to do")
        damage = folder.damage() if state == "done" else None
        if state == "done" and damage is None:
            result.append(RunStatus(config, "done", seconds=own_seconds(status)))
        elif is_final_failure(status, retries) and not again:
            reason = f"{status.get('error', '')} (given up before)"
            result.append(RunStatus(config, "failed", reason))
        elif config.run_name in leased:
            result.append(RunStatus(config, "running"))
        elif damage is not None:
            result.append(RunStatus(config, "damaged", damage))
        elif state == "failed":
            result.append(RunStatus(config, "retry", status.get("error", "")))
        else:
            result.append(RunStatus(config, "interrupted" if status else "to do"))
    return result


def own_seconds(status: Mapping[str, Any]) -> float | None:
    """Return the seconds of a run that another one like it would take as well; None: unknown."""
    seconds = status.get("seconds")
    return None if seconds is None else max(seconds - status.get("once_s", 0.0), 0.0)


def _leased_runs(outputs: set[Path]) -> set[str]:
    """Return the names of runs whose lease has a holder that is not known to be gone."""
    leases, names = Leases(), set()
    for output in outputs:
        for file in output.joinpath(".claim").glob("*"):
            holder = leases.holder(output / file.name)
            if holder is not None and not holder.is_gone:
                names.add(file.name)
    return names


def estimate(states: Sequence[RunStatus]) -> tuple[float | None, int]:
    """Return the seconds that the open runs take one after the other, and a count.

    A run is estimated by the mean of the most similar finished runs: of the same method, dataset
    and bits; the same method and dataset; method; dataset; any. The count is of finished runs.
    """
    known: dict[tuple[Any, ...], list[float]] = {}
    finished = [s for s in states if s.seconds is not None]
    for state in finished:
        for key in _similarity_keys(state.config):
            known.setdefault(key, []).append(state.seconds or 0.0)
    if not finished:
        return None, 0
    total = 0.0
    for state in states:
        if state.is_open:
            key = next(key for key in _similarity_keys(state.config) if key in known)
            total += statistics.fmean(known[key])
    return total, len(finished)


def _similarity_keys(config: RunConfig) -> list[tuple[Any, ...]]:
    method, dataset = config.method, config.dataset_name
    return [(method, dataset, config.bits), (method, dataset), (method,), ("", dataset), ()]


def summary(states: Sequence[RunStatus], workers: int | str) -> str:
    """Return a line with the number of runs by state and the time that the open ones take."""
    counts = Counter("to do" if s.state == "interrupted" else s.state for s in states)
    parts = [f"{count} {state}" for state, count in counts.items()]
    line = f"{len(states)} runs: {', '.join(parts)}"
    seconds, finished = estimate(states)
    if not any(s.is_open for s in states):
        return line
    if seconds is None:
        return f"{line}; no finished run to estimate the time from"
    count = workers if isinstance(workers, int) and workers > 0 else 1
    estimated = f"{duration(seconds / count)} with {count} worker{'s' * (count > 1)}"
    return f"{line}; about {estimated} (from {finished} finished runs)"


def group_by_data(configs: Sequence[RunConfig]) -> list[RunConfig]:
    """Return the runs grouped by dataset and encoder, which consecutive runs share in memory."""
    keys = [repr((c.resolved["dataset"], c.resolved["backbone"])) for c in configs]
    first = {key: number for number, key in reversed(list(enumerate(keys)))}
    order = sorted(range(len(configs)), key=lambda number: first[keys[number]])
    return [configs[number] for number in order]


def print_statuses(states: Sequence[RunStatus], notes: Sequence[str]) -> None:
    """Print a line for each run, with its note, such as which overrides chose it."""
    for state, note in zip(states, notes, strict=True):
        reason = f"  ({state.reason})" if state.reason else ""
        say(f"{state.state:12} {state.config.run_name}{reason}{'  ' * bool(note)}{note}")
