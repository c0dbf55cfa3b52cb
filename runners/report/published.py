"""Published numbers beside ours, only where the protocol is the same.

The file is a CSV with the columns ``method, paper_or_repo, dataset, bits, direction, metric, value,
source``; a column ``protocol`` may name the protocol of ours (``main.py list datasets`` shows them)
that a row follows. Without it a row follows the protocol whose papers include the first word of
``paper_or_repo``. A run follows a protocol when its dataset was drawn by it and has the numbers of
queries, training and database rows that the protocol publishes.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.registry import DATASETS
from runners.report.dataset_reader import run_config
from runners.report.study import Line, Study
from utils.errors import UserError

if TYPE_CHECKING:
    from dataset.preparation.protocol import Protocol

COLUMNS = (
    "method", "paper_or_repo", "dataset", "bits", "direction", "metric", "value", "source",
)  # fmt: skip
_METRIC = re.compile(r"(best )?mAP(@(?P<cut>all|\d+))?( \((this impl\.|paper column)\))?$", re.I)


@dataclasses.dataclass(frozen=True)
class Published:
    """One number of a paper or a repository."""

    method: str
    paper: str
    dataset: str
    bits: int | None
    direction: str
    metric: str
    value: float
    source: str
    protocol: str = ""

    @property
    def cut(self) -> str | None:
        """``all`` or a number: where mAP is cut; None where the metric is no plain mAP."""
        found = _METRIC.match(self.metric)
        return None if found is None else (found["cut"] or "all").lower()


@dataclasses.dataclass(frozen=True)
class Match:
    """A published number and the line of ours that measures the same."""

    published: Published
    line: Line
    ours: float
    std: float | None
    protocol: Protocol
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All matches, and why other rows of the same datasets and methods were not compared."""

    matches: tuple[Match, ...]
    left_out: dict[str, int]
    rows: int


def read_published(path: str | Path) -> list[Published]:
    """Return the rows of a CSV file.

    Raises:
        UserError: no such file, no CSV, a column missing, or a value that is no number.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            table = csv.DictReader(stream)
            missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
            if missing:
                raise UserError(
                    f"--published: '{path}' lacks the column {missing[0]}; needed are "
                    f"{', '.join(COLUMNS)}, and protocol may be there."
                )
            return [_row(values, path, number) for number, values in enumerate(table, 2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--published: '{path}' cannot be read as CSV ({error}).") from error


def _row(values: dict[str, Any], path: str | Path, number: int) -> Published:
    bits = str(values["bits"] or "").strip()
    try:
        value = float(values["value"])
    except (TypeError, ValueError) as error:
        raise UserError(
            f"--published: '{path}', line {number}: value is '{values['value']}'; a number is "
            "needed."
        ) from error
    words = {name: str(values.get(name) or "").strip() for name in (*COLUMNS, "protocol")}
    return Published(
        words["method"], words["paper_or_repo"], words["dataset"],
        int(bits) if bits.isascii() and bits.isdigit() else None, words["direction"],
        words["metric"], value, words["source"], words["protocol"],
    )  # fmt: skip


def compare(study: Study, rows: list[Published]) -> Comparison:
    """Return what can be compared, in the order of the leaderboard."""
    matches: list[Match] = []
    left_out: Counter[str] = Counter()
    by_cell: dict[tuple[Any, ...], list[Published]] = {}
    for row in rows:
        key = _plain(row.method), _dataset(row.dataset), row.bits, row.direction
        by_cell.setdefault(key, []).append(row)
    for line in study.lines:
        ours = line.row
        key = _plain(ours.method), _dataset(ours.dataset), ours.bits, ours.direction
        same = by_cell.get(key, [])
        protocol, reason = protocol_of(study, line) if same else (None, "")
        for row in same:
            told = reason if protocol is None else _why_not(row, line, protocol)
            if told or protocol is None:
                left_out[told] += 1
            else:
                matches.append(_match(row, line, protocol))
    return Comparison(tuple(matches), dict(left_out.most_common()), len(rows))


def _why_not(row: Published, line: Line, protocol: Protocol) -> str:
    """Return why numbers of the same method and dataset cannot be compared, or ``""``."""
    if row.cut is None:
        return f"'{row.metric}' is not among our measures"
    if row.protocol:
        if row.protocol != protocol.name:
            return f"protocol {row.protocol}, ours is {protocol.name}"
    elif _first_word(row.paper) not in _words(protocol.papers):
        return f"another protocol than {protocol.name} ({protocol.papers})"
    classes = re.search(r"\((\d+)\D*\)", row.dataset)
    if classes and protocol.published.get("classes") not in (None, int(classes[1])):
        return f"{classes[1]} classes, ours has {protocol.published['classes']}"
    if line.mean("map", row.cut, "expected") is None:
        return f"mAP@{row.cut} was not measured; main.py evaluate RUN eval.at=[all,{row.cut}]"
    return ""


def _match(row: Published, line: Line, protocol: Protocol) -> Match:
    assert row.cut is not None
    ours = line.mean("map", row.cut, "expected")
    assert ours is not None
    notes = [protocol.note] if protocol.note else []
    if "@" not in row.metric:
        notes.append("the source names no cut; compared with mAP@all")
    if row.metric.lower().startswith("best"):
        notes.append("the source states its best epoch")
    notes.append(f"our epoch: {line.row.selected_on}")
    deviation = line.deviation("map", row.cut, "expected")
    return Match(row, line, ours, deviation, protocol, tuple(notes))


def protocol_of(study: Study, line: Line) -> tuple[Protocol | None, str]:
    """Return the published protocol that the runs of a line follow, or why there is none."""
    result = line.results[0]
    section = run_config(result.folder).get("dataset", {})
    name = str(section.get("name", ""))
    source = getattr(DATASETS.get(name).config, "source", None) if name in DATASETS else None
    if source is None:
        return None, f"{line.row.dataset} is not drawn by a published protocol"
    split = section.get("split") or {}
    chosen = split.get("name") if isinstance(split, dict) else split
    protocols = {protocol.name: protocol for protocol in source.protocols}
    protocol = protocols.get(chosen or source.protocols[0].name)
    if protocol is None:
        return None, f"protocol {chosen} is not known"
    rows = study.metrics[result.folder]["protocol"].get("rows", {})
    ours = {**rows, "train": rows.get("train", 0) + rows.get("val", 0)}
    for part in ("query", "train", "database"):
        wanted = protocol.published.get(part)
        if wanted is not None and ours.get(part) != wanted:
            return None, f"{ours.get(part)} {part} rows, {protocol.name} has {wanted}"
    return protocol, ""


def _dataset(name: str) -> str:
    """Return a dataset's name as ours are written: ``MIRFlickr25K`` is ``flickr25k``."""
    word = _plain(re.sub(r"\(.*?\)", "", name))
    word = word.removeprefix("mir").removeprefix("ms")
    return {"coco2017": "coco", "cub200": "cub", "cub2002011": "cub"}.get(word, word)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().removesuffix(" loss"))


def _words(text: str) -> set[str]:
    return {word.lower() for word in re.split(r"[\s,()]+", text) if word}


def _first_word(text: str) -> str:
    return text.split()[0].lower() if text.split() else ""
