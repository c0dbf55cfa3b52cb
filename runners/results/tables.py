"""The tables of a set of runs: leaderboards, zero-shot measures and costs.

A column that is added to ``LEADERBOARD`` or ``COSTS`` stands in the terminal, in Markdown, in LaTeX
and on the page. See :mod:`runners.results.renderers` for how a table is written.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from runners.results.leaderboard import ZERO_SHOT, Row, grouped, mean_and_std

TERMINAL, FILE, PAGE = "terminal", "file", "page"
"""Where a table is shown; a file is Markdown or LaTeX."""

ALIKE = {
    TERMINAL: "≈ not distinguishable from the best: paired t tests over seeds and queries, 5 %, "
    "Holm's correction",
    FILE: "≈ not distinguishable from the best (paired t tests over seeds and queries, 5 %, Holm)",
}
MOST_TOO_FEW = 2
"""Seeds with which a test tells little apart."""

TOO_FEW = "≈ with two seeds or fewer means too few seeds to tell, not that methods are equally good"
_ZERO_SHOT_NOTE = (
    "all classes: queries of unseen classes, database of all; unseen only: database of unseen "
    "classes; harmonic mean: of unseen and seen queries, against one database of both"
)
_OVER: dict[str, Callable[[list[Any]], Any]] = {
    "mean": statistics.fmean, "max": max, "words": lambda values: ", ".join(sorted(set(values))),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Cell:
    """A text, whether it is the best of its column, and whether it cannot be told from the best."""

    text: str
    best: bool = False
    alike: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A titled table; ``grouped``: rows with another first cell stand apart in the terminal."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    grouped: bool = False


@dataclasses.dataclass(frozen=True)
class Column:
    """A column with one value for each row.

    Attributes:
        key: names the values in the data of the page.
        heading: stands above.
        value: row → number, text, or None where there is none.
        digits: of a number, after the point.
        over: how the values of several code lengths become one: ``mean``, ``max``, ``words``.
        shown: where the column is shown.
        page: the page's own ``heading`` and ``digits``, ``title`` (of the heading), ``unit``
            (``bytes``), ``optional`` (left out where no row has a value).
    """

    key: str
    heading: str
    value: Callable[[Row], Any]
    digits: int = 0
    over: str = "mean"
    shown: tuple[str, ...] = (TERMINAL, FILE, PAGE)
    page: dict[str, Any] = dataclasses.field(default_factory=dict)

    def text(self, rows: Iterable[Row]) -> str:
        """Return the value of rows that differ in their code length, as text."""
        values = [value for value in map(self.value, rows) if value is not None]
        if not values:
            return "–"
        value = _OVER[self.over](values)
        return value if isinstance(value, str) else f"{value:.{self.digits}f}"


def _seconds(phase: str) -> Callable[[Row], float | None]:
    return lambda row: mean_and_std(row.costs("timing", phase))[0]


def _peak(key: str) -> Callable[[Row], float | None]:
    def value(row: Row) -> float | None:
        peaks = row.costs("memory", key)
        return None if None in peaks else max(p for p in peaks if p is not None)

    return value


def _code_bytes(row: Row) -> int | None:
    rows = row.results[0].report.get("database")
    return None if rows is None else rows * -(-row.bits // 8)


def _weight_bytes(row: Row) -> int | None:
    checkpoints = row.results[0].folder / "checkpoints"
    for pattern in ("best/*.safetensors", "last/[ml]*.safetensors"):
        if size := sum(file.stat().st_size for file in checkpoints.glob(pattern)):
            return size
    return None


LEADERBOARD = (
    Column("seeds", "seeds", lambda row: row.seeds, over="max"),
    Column("selected_on", "epoch chosen on", lambda row: row.selected_on, over="words"),
    Column(
        "train_s", "train s", _seconds("train_s"), 1, shown=(TERMINAL, PAGE),
        page={"heading": "training, s", "title": "mean over seeds and code lengths"},
    ),
)  # fmt: skip
COSTS = (
    Column("setup_s", "set-up s", _seconds("setup_s"), 1, page={"heading": "set-up, s"}),
    Column("train_s", "training s", _seconds("train_s"), 1, page={"heading": "training, s"}),
    Column("encode_s", "encoding s", _seconds("encode_s"), 1, page={"heading": "encoding, s"}),
    Column(
        "time_s", "measuring s", _seconds("time_s"), 1,
        page={"heading": "measuring, s", "digits": 2},
    ),
    Column(
        "codes", "database codes, one modality", _code_bytes, shown=(PAGE,), page={"unit": "bytes"}
    ),
    Column("weights", "trained weights", _weight_bytes, shown=(PAGE,), page={"unit": "bytes"}),
    Column(
        "peak_mb", "peak memory, MB", _peak("peak_mb"), shown=(PAGE,), page={"optional": True}
    ),
    Column(
        "device_peak_mb", "peak GPU memory, MB", _peak("device_peak_mb"), shown=(PAGE,),
        page={"optional": True},
    ),
)  # fmt: skip


def cells(*texts: str) -> tuple[Cell, ...]:
    """Return a row of texts."""
    return tuple(map(Cell, texts))


def score(mean: float, std: float | None) -> str:
    """Return ``0.1234 ± 0.0056``, or the mean alone."""
    return f"{mean:.4f}" + (f" ± {std:.4f}" if std is not None else "")


def leaderboard(rows: Sequence[Row], medium: str) -> Table:
    """Return mAP@all of the methods on one dataset and direction, the best method first."""
    bits = sorted({row.bits for row in rows})
    best = {k: max(row.mean for row in rows if row.bits == k) for k in bits}
    columns = [column for column in LEADERBOARD if medium in column.shown]
    methods = grouped(rows, "name")
    measures = list(dict.fromkeys(name for row in rows for name in row.release_measures))
    body = []
    for name in sorted(methods, key=lambda n: -max(row.mean for row in methods[n])):
        by_bits = {row.bits: row for row in methods[name]}
        scores = [_score_cell(by_bits.get(k), best[k]) for k in bits]
        repeated = (_measure_cell(by_bits.get(k), rows, k, m) for m in measures for k in bits)
        summary = cells(*(column.text(methods[name]) for column in columns))
        body.append((Cell(name), *scores, *repeated, *summary))
    splits = ", ".join(sorted({split for row in rows for split in row.split_hashes}))
    reading = "; mean ± std over seeds; best in bold" if medium == FILE else ""
    notes = [f"split {splits}; expected over tie orders{reading}"]
    if any(row.alike for row in rows):
        notes.append(ALIKE[medium])
    if any(row.alike and row.seeds <= MOST_TOO_FEW for row in rows):
        notes.append(TOO_FEW)
    if measures:
        notes.append(f"{', '.join(measures)}: mAP as released code computes it, ties by row number")
    notes += legend(rows)
    repeated_head = (f"{k} bits, {measure}" for measure in measures for k in bits)
    summary_head = (column.heading for column in columns)
    head = ("method", *(f"{k} bits" for k in bits), *repeated_head, *summary_head)
    return Table(_title(rows[0], "mAP@all", medium), head, tuple(body), tuple(notes))


def legend(rows: Sequence[Row]) -> list[str]:
    """Return what the names of recipes stand for, where they do not say all that differs."""
    lines = []
    for name, members in grouped(rows, "name").items():
        by_bits = {row.bits: row.settings for row in sorted(members, key=lambda row: row.bits)}
        if all(len(row.settings) == bool(row.variant) for row in members):
            continue  # nothing differs, or the name says it
        if len(set(by_bits.values())) == 1:
            lines.append(f"{name}: {', '.join(members[0].settings)}")
        else:
            lines += [f"{name}, {bits} bits: {', '.join(s)}" for bits, s in by_bits.items()]
    return lines


def _title(row: Row, measure: str, medium: str) -> str:
    if medium == TERMINAL:
        return f"{row.dataset}  {row.direction}  {measure} (mean ± std over seeds)"
    return f"{row.dataset}, {row.direction}, {measure}"


def _score_cell(row: Row | None, best: float) -> Cell:
    if row is None:
        return Cell("–")
    return Cell(score(row.mean, row.std), row.mean == best, bool(row.alike))


def _measure_cell(row: Row | None, rows: Sequence[Row], bits: int, measure: str) -> Cell:
    """Return a release's mAP of a row, the best of the code length marked."""
    mean, std = (None, None) if row is None else row.over_seeds("compat", measure)
    if mean is None:
        return Cell("–")
    values = [other.over_seeds("compat", measure)[0] for other in rows if other.bits == bits]
    return Cell(score(mean, std), mean == max(value for value in values if value is not None))


def zero_shot(rows: Sequence[Row], medium: str) -> list[Table]:
    """Return a table of the zero-shot measures on one dataset and direction, if there are any."""
    measured = [row for row in rows if row.all_classes is not None]
    if not measured:
        return []
    body = []
    for row in sorted(measured, key=lambda row: (row.bits, -(row.all_classes or 0))):
        scores = []
        for measure in ZERO_SHOT:
            mean, std = getattr(row, measure), getattr(row, f"{measure}_std")
            values = [getattr(other, measure) for other in measured if other.bits == row.bits]
            best = max((value for value in values if value is not None), default=None)
            bold = medium == TERMINAL and mean == best
            scores.append(Cell("–") if mean is None else Cell(score(mean, std), bold))
        body.append((*cells(str(row.bits), row.name), *scores))
    title = _title(rows[0], "zero-shot mAP@all", medium)
    head = ("bits", "method", *ZERO_SHOT.values())
    return [Table(title, head, tuple(body), (_ZERO_SHOT_NOTE,), grouped=True)]


def costs(rows: Iterable[Row], medium: str) -> Table:
    """Return the time of each method, dataset and code length; it is that of all directions."""
    columns = [column for column in COSTS if medium in column.shown]
    runs = {(row.dataset, row.name, row.bits): row for row in rows}
    body = [
        cells(row.name, row.dataset, str(row.bits), *(column.text([row]) for column in columns))
        for row in runs.values()
    ]
    head = ("method", "dataset", "bits", *(column.heading for column in columns))
    return Table("Time, means over seeds", head, tuple(body))
