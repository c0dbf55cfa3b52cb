"""Published numbers beside ours where the whole recipe is the same, and near ours where it is not.

The file is a CSV with the columns ``method, paper_or_repo, dataset, bits, direction, metric, value,
source``; ``recipe`` may name a recipe of ours. The recipe behind a row is the run of
``configs/sweep/papers`` that repeats its table (:mod:`runners.recipes`). A row is set beside a run
only where no key of the two recipes differs and ours deviates from the release in nothing;
otherwise it is near, with what differs in words. The value compared is the one that the release
defines: its policy and cut.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import itertools
import re
from collections import Counter
from pathlib import Path
from typing import Any

from common.config.run_config import read_complete
from dataset.preparation.followed import followed
from runners.recipes.describe import describe, differences
from runners.recipes.papers import PaperRun, paper_runs, paper_sweeps, paper_tables, plain_dataset
from runners.report.study import Study
from runners.results.leaderboard import Row
from runners.results.tables import Table, cells, score
from utils.errors import UserError
from utils.files import check_plain_file

_METRIC = re.compile(
    r"(best )?mAP(@(?P<cut>all( but the last row)?|\d+))?( \((this impl\.|paper column)\))?$", re.I
)
SHOWN = 6  # keys that differ, in the note of a row


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
    recipe: str = ""

    @property
    def cut(self) -> str | None:
        """``all`` or a number: where mAP is cut; None where the metric is no plain mAP."""
        match = _METRIC.match(self.metric)
        return None if match is None else (match["cut"] or "all").lower()


COLUMNS = [field.name for field in dataclasses.fields(Published) if field.name != "recipe"]


@dataclasses.dataclass(frozen=True)
class Match:
    """A published number and a row of ours.

    Attributes:
        measure: what our number is, such as ``mAP@all`` or ``deephash@5000``.
        ours: None where it was not measured.
        recipe: of the published number, such as ``dcmht.coco``; empty where none is recorded.
        differs: what differs between the recipes, in words; empty for a row set beside.
        notes: what a reader must know beside.
    """

    published: Published
    row: Row
    measure: str
    ours: float | None
    std: float | None
    recipe: str
    differs: tuple[str, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Published numbers of one file and ours.

    Attributes:
        matches: of the same recipe, in the order of the leaderboard.
        near: of the same method, data, length and direction, by another recipe.
        left_out: why further rows were not compared → how many.
        rows: in the file.
    """

    matches: tuple[Match, ...]
    near: tuple[Match, ...]
    left_out: dict[str, int]
    rows: int


def read_published(path: str | Path) -> list[Published]:
    """Return the rows of a CSV file.

    Raises:
        UserError: no such file, no CSV, a column missing, or a value that is no number.
    """
    check_plain_file(Path(path))
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            table = csv.DictReader(stream)
            missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
            if missing:
                raise UserError(
                    f"--published: '{path}' lacks the column {missing[0]}; needed are "
                    f"{', '.join(COLUMNS)}, and recipe may be there."
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
    words = {name: str(values.get(name) or "").strip() for name in (*COLUMNS, "recipe")}
    length = int(words["bits"]) if re.fullmatch("[0-9]+", words["bits"]) else None
    return Published(**{**words, "bits": length, "value": value})  # type: ignore[arg-type]


def compare(study: Study, rows: list[Published]) -> Comparison:
    """Return the published numbers beside and near each row, in the order of the leaderboard."""
    matches: list[Match] = []
    near: list[Match] = []
    left_out: Counter[str] = Counter()
    by_cell: dict[tuple[Any, ...], list[Published]] = {}
    for theirs in rows:
        by_cell.setdefault(_cell(theirs), []).append(theirs)
    for row in study.rows:
        run = RecipeOfRow(row)
        cells = [by_cell.get((name, row.bits, row.direction), []) for name in run.set_names]
        for theirs in itertools.chain(*cells):
            if not run.is_of(theirs):
                continue
            if theirs.cut is None:
                left_out[f"'{theirs.metric}' is not among our measures"] += 1
                continue
            match = run.against(theirs)
            (near if match.differs else matches).append(match)
    return Comparison(tuple(matches), tuple(near), dict(left_out.most_common()), len(rows))


def _cell(theirs: Published) -> tuple[str, int | None, str]:
    """Return what a number and a row of ours must share, beside the method."""
    direction = "i2i" if theirs.direction == "zsh" else theirs.direction
    return plain_dataset(theirs.dataset), theirs.bits, direction


class RecipeOfRow:
    """A row of the leaderboard and its recipe, to be held against those of published numbers."""

    def __init__(self, row: Row) -> None:
        """Take the row; its recipe is read when it is first needed."""
        self.row = row
        first = row.results[0]
        self.config, self.protocol = dict(first.config), first.metrics["protocol"]
        ours = followed(self.config["dataset"], self.protocol)
        if not isinstance(ours, str) and self.config["dataset"]["name"] != ours.dataset:
            self.config["dataset"] = ours.section()  # rows of another layout follow it, too
        dataset = str(self.config["dataset"].get("config", row.dataset))
        split_name = str(self.config["dataset"].get("split", {}).get("name"))
        called = [dataset, split_name if split_name.startswith(dataset) else dataset]
        self.set_names = list(dict.fromkeys(map(plain_dataset, called)))

    def is_of(self, theirs: Published) -> bool:
        """Tell whether the number is of the row's method, by name or by model and loss."""
        if plain_name(theirs.method) == plain_name(self.row.method):
            return True
        paper = paper_run(theirs)
        if paper is None:
            return False
        return all(
            self.config[part]["name"] == paper.config.resolved[part]["name"]
            for part in ("model", "loss")
        )

    @functools.cached_property
    def recipe(self) -> dict[str, Any] | str:
        """The recipe with the numbers of rows that the run had, or why there is none."""
        try:
            recipe = describe(read_complete(self.config))
        except UserError as error:
            return f"the run's configuration is not read ({error})"
        counted = self.protocol.get("rows", {})
        parts = {"train": "train", "val": "validation", "query": "query", "database": "database"}
        rows = {theirs: counted[ours] for ours, theirs in parts.items() if ours in counted}
        return {**recipe, "rows": {**recipe.get("rows", {}), **rows}}

    def against(self, theirs: Published) -> Match:
        """Return the number and ours, with what differs between their recipes."""
        paper = paper_run(theirs)
        if paper is None:
            measure, differs = f"mAP@{theirs.cut}", [NO_RECIPE]
        else:
            measure, differs = measure_of(theirs, paper), self._differs(paper)
        ours, std = self._value(measure, str(theirs.cut))
        if ours is None:
            differs.append(f"{measure} was not measured (main.py evaluate RUN)")
        notes = [f"our epoch: {self.row.selected_on}"]
        if theirs.metric.lower().startswith("best"):
            notes.append("the source states its best epoch")
        name = "" if paper is None else paper.name
        return Match(theirs, self.row, measure, ours, std, name, tuple(differs), tuple(notes))

    def _differs(self, paper: PaperRun) -> list[str]:
        if isinstance(self.recipe, str):
            return [self.recipe]
        found = differences(self.recipe, paper.recipe, tuple(paper.table.unknown))
        words = [
            f"{key}: {in_words(ours)}, there {in_words(t)}" for key, (ours, t) in found.items()
        ]
        return words + [f"{d.key}: {d.reason}" for d in paper.deviations if not d.comparable]

    def _value(self, measure: str, cut: str) -> tuple[float | None, float | None]:
        if measure.startswith("mAP@"):
            return self.row.over_seeds("map", cut, "expected")
        return self.row.over_seeds("compat", measure)


NO_RECIPE = "its recipe is not recorded"


def measure_of(theirs: Published, paper: PaperRun) -> str:
    """Return the measure of ours that a number is compared with, ``deephash@5000``."""
    cut = "-1" if theirs.cut == "all but the last row" else theirs.cut
    measures = paper.config.eval.measure or []
    of_cut = [measure for measure in measures if measure.partition("@")[2] == cut]
    return (of_cut or measures or [f"mAP@{theirs.cut}"])[0]


@functools.cache
def paper_run(theirs: Published) -> PaperRun | None:
    """Return the run of ``configs/sweep/papers`` that repeats a number, or None."""
    if theirs.recipe:
        runs = [run for sweep in paper_sweeps() for run in paper_runs(sweep)]
        named = [r for r in runs if (r.name, r.config.bits) == (theirs.recipe, theirs.bits)]
        return named[0] if named else None
    sweep, table = paper_tables().get(theirs.paper_or_repo, (None, None))
    if sweep is None or table is None or theirs.method not in table.published[theirs.paper_or_repo]:
        return None
    method = table.published[theirs.paper_or_repo][theirs.method]
    name = plain_dataset(theirs.dataset)
    for run in paper_runs(sweep):
        if run.config.method == method and run.config.bits == theirs.bits and name in run.set_names:
            return run
    return None


def in_words(value: Any) -> str:
    """Return a value of a recipe for a reader."""
    if value is None:
        return "none"
    if isinstance(value, list):
        return " then ".join(map(str, value)) or "nothing"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def published_tables(comparison: Comparison) -> list[Table]:
    """Return the numbers beside ours, and those near ours with what differs."""
    head = (
        "method", "dataset", "task", "bits", "measure", "published", "ours", "difference", "paper",
        "source",
    )  # fmt: skip
    left_out = [f"{count} not compared: {reason}" for reason, count in comparison.left_out.items()]
    tables = []
    for title, matches, last, notes in (
        ("Published and ours, same recipe", comparison.matches, "notes", left_out),
        ("Near: other recipes than ours", comparison.near, "what differs", []),
    ):
        rows = tuple(cells(*_texts(match)) for match in matches)
        tables.append(Table(title, (*head, last), rows, tuple(notes)))
    return tables[: 2 if comparison.near else 1]


def _texts(match: Match) -> tuple[str, ...]:
    theirs, row, ours = match.published, match.row, match.ours
    return (
        row.name, row.dataset, row.direction, str(row.bits), match.measure,
        f"{theirs.value:.4f}", "" if ours is None else score(ours, match.std),
        "" if ours is None else f"{ours - theirs.value:+.4f}", theirs.paper_or_repo, theirs.source,
        remarks(match),
    )  # fmt: skip


def remarks(match: Match) -> str:
    """Return what differs, or the notes of a row that nothing differs in; at most six things."""
    words = match.differs or match.notes
    more = f"; and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return "; ".join(words[:SHOWN]) + more


def plain_name(name: str) -> str:
    """Return a method's name in plain letters."""
    return re.sub(r"[^a-z0-9]", "", name.lower().removesuffix(" loss"))
