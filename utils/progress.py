"""Progress bars with the remaining time, on a terminal only, removed at the end."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from utils.heartbeat import heartbeat
from utils.shown import shown


@contextlib.contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[..., None]]:
    """Yield ``advance(count, note="")``; shows nothing if stderr is no terminal.

    Every call is a heartbeat, see :mod:`utils.heartbeat`.
    """
    if not sys.stderr.isatty():
        yield lambda count=1, note="": heartbeat()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("left"), TimeLeft(),
        TextColumn("{task.fields[note]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(shown(title), total=total, note="")

        def advance(count: float = 1, note: str = "") -> None:
            heartbeat()
            progress.update(task, advance=count, note=shown(note))

        yield advance
