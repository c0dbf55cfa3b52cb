"""Progress of long work: bars on a terminal, removed at the end, and lines for logs."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

from utils.heartbeat import heartbeat
from utils.shown import shown

log = logging.getLogger("hashing")
FIRST_LINE_S, NEXT_LINE = 15.0, 1.5
"""Seconds until the first line of progress; each later one comes after 1.5 times as long."""
LONGEST_PAUSE_S = 300.0


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


@contextlib.contextmanager
def row_progress(title: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Yield ``advance(rows)``: a bar on a terminal, and lines in the log, seldom and more seldom.

    A line has the rows done, the rate and the time left; where there is a bar, the line is for
    files only. ``done``: rows that are there from before, which the rate leaves out.
    """
    start = last = time.monotonic()
    pause, rows = FIRST_LINE_S, done
    shows_bar = sys.stderr.isatty()
    with progress_bar(title, total) as advance:
        advance(done)

        def count(more: int) -> None:
            nonlocal last, pause, rows
            advance(more)
            rows += more
            now = time.monotonic()
            if now - last < pause or rows >= total:
                return
            rate = (rows - done) / (now - start)
            log.info(
                "%s: %s of %s rows, %s rows/s, %s left", title, f"{rows:,}", f"{total:,}",
                f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}", duration((total - rows) / rate),
                extra={"file_only": shows_bar},
            )  # fmt: skip
            last, pause = now, min(pause * NEXT_LINE, LONGEST_PAUSE_S)

        yield count


def duration(seconds: float) -> str:
    """Return seconds in words.

    >>> duration(42), duration(3725), duration(200000)
    ('42 s', '1 h 2 min', '2 d 8 h')
    """
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"
