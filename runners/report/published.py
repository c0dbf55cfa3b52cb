"""Published numbers beside ours, only where the protocol is the same.

The file is a CSV with the columns ``method, paper_or_repo, dataset, bits, direction, metric, value,
source``; a column ``protocol`` may name the protocol of ours (``main.py list datasets`` shows them)
that a row follows. Without it a row follows the protocol whose papers include the first word of
``paper_or_repo``. Which protocol a run follows: :mod:`dataset.preparation.followed`.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import Any

from dataset.preparation.followed import Followed, followed
from dataset.preparation.protocol import Protocol
from runners.report.study import Study
from runners.results.leaderboard import Row
from runners.results.tables import Table, cells, score
from utils.errors import UserError

_METRIC = re.compile(r"(best )?mAP(@(?P<cut>all|\d+))?( \((this impl\.|paper column)\))?$", re.I)


@dataclasses.dataclass(frozen=True)
class Published:
    """One number of a paper or a repository."""

    method: str
    paper_or_repo: str
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
        match = _METRIC.match(self.metric)
        return None if match is None else (match["cut"] or "all").lower()


COLUMNS = [field.name for field in dataclasses.fields(Published) if field.name != "protocol"]


@dataclasses.dataclass(frozen=True)
class Match:
    """A published number and the row of ours that measures the same."""

    published: Published
    row: Row
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
    try:
        value = float(values["value"])
    except (TypeError, ValueError) as error:
        raise UserError(
            f"--published: '{path}', line {number}: value is '{values['value']}'; a number is "
            "needed."
        ) from error
    words = {name: str(values.get(name) or "").strip() for name in (*COLUMNS, "protocol")}
    length = int(words["bits"]) if re.fullmatch("[0-9]+", words["bits"]) else None
    return Published(**{**words, "bits": length, "value": value})  # type: ignore[arg-type]


def compare(study: Study, rows: list[Published]) -> Comparison:
    """Return what can be compared, in the order of the leaderboard."""
    matches: list[Match] = []
    left_out: Counter[str] = Counter()
    by_cell: dict[tuple[Any, ...], list[Published]] = {}
    for theirs in rows:
        by_cell.setdefault(_cell(theirs, theirs.dataset), []).append(theirs)
    for row in study.rows:
        ours = followed_by(row)
        dataset = row.dataset if isinstance(ours, str) else ours.dataset
        for theirs in by_cell.get(_cell(row, dataset), []):
            match = ours if isinstance(ours, str) else _match(theirs, row, ours.protocol)
            if isinstance(match, Match):
                matches.append(match)
            else:
                left_out[match] += 1
    return Comparison(tuple(matches), dict(left_out.most_common()), len(rows))


def _match(theirs: Published, row: Row, protocol: Protocol) -> Match | str:
    """Return a match, or why numbers of the same method and dataset cannot be compared."""
    if theirs.cut is None:
        return f"'{theirs.metric}' is not among our measures"
    papers = re.findall(r"[^\s,()]+", protocol.papers.lower())
    if theirs.protocol:
        if theirs.protocol != protocol.name:
            return f"protocol {theirs.protocol}, ours is {protocol.name}"
    elif (theirs.paper_or_repo.lower().split() or [""])[0] not in papers:
        return f"another protocol than {protocol.name} ({protocol.papers})"
    classes = re.search(r"\((\d+)\D*\)", theirs.dataset)
    if classes and protocol.published.get("classes") not in (None, int(classes[1])):
        return f"{classes[1]} classes, ours has {protocol.published['classes']}"
    ours, std = row.over_seeds("map", theirs.cut, "expected")
    if ours is None:
        return f"mAP@{theirs.cut} was not measured; main.py evaluate RUN eval.at=[all,{theirs.cut}]"
    notes = [protocol.note] if protocol.note else []
    if "@" not in theirs.metric:
        notes.append("the source names no cut; compared with mAP@all")
    if theirs.metric.lower().startswith("best"):
        notes.append("the source states its best epoch")
    notes.append(f"our epoch: {row.selected_on}")
    return Match(theirs, row, ours, std, protocol, tuple(notes))


def followed_by(row: Row) -> Followed | str:
    """Return the published protocol that the runs of a row follow, or why there is none."""
    result = row.results[0]
    return followed(result.config["dataset"], result.metrics["protocol"])


def published_table(comparison: Comparison) -> Table:
    """Return the published numbers beside ours."""
    rows = []
    for match in comparison.matches:
        theirs, row = match.published, match.row
        texts = (
            row.name, row.dataset, row.direction, str(row.bits), f"mAP@{theirs.cut}",
            f"{theirs.value:.4f}", score(match.ours, match.std),
            f"{match.ours - theirs.value:+.4f}", match.protocol.name, theirs.paper_or_repo,
            theirs.source,
        )  # fmt: skip
        rows.append(cells(*texts))
    head = (
        "method", "dataset", "task", "bits", "measure", "published", "ours", "difference",
        "protocol", "paper", "source",
    )  # fmt: skip
    notes = [f"{count} not compared: {reason}" for reason, count in comparison.left_out.items()]
    return Table("Published and ours, same protocol", head, tuple(rows), tuple(notes))


def _cell(entry: Published | Row, dataset: str) -> tuple[str, str, int | None, str]:
    """Return what two numbers must share to be compared."""
    return _plain(entry.method), _dataset(dataset), entry.bits, entry.direction


def _dataset(name: str) -> str:
    """Return a dataset's name as ours are written: ``MIRFlickr25K`` is ``flickr25k``."""
    word = _plain(re.sub(r"\(.*?\)", "", name))
    word = word.removeprefix("mir").removeprefix("ms")
    return {"coco2017": "coco", "cub200": "cub", "cub2002011": "cub"}.get(word, word)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().removesuffix(" loss"))
