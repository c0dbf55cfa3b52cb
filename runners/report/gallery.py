"""What the codes retrieve: some queries, and the ten nearest rows of each method.

Per dataset and direction one bit length (the one with most methods; of several, the longest), the
best methods of it, and of each the first seed, where it has the same query and database rows as the
others. Rows at equal distance stand in the order of the database. Thumbnails are made until a
budget is spent.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
from collections import Counter
from typing import Any

import numpy as np

from common.code_files.run_codes import CodeSet, read_codes
from common.directions import sides
from dataset.base import BadImageError, HashDataset
from runners.evaluation.nearest import nearest, spread
from runners.evaluation.run_report import codes_file
from runners.report.study import Study
from runners.results.leaderboard import Row
from utils.errors import UserError

METHODS = 8
TOP = 10
BUDGET = 8_000_000  # bytes of thumbnails as they stand on the page
SIDE = 96  # pixels of a thumbnail
_CHARACTERS = 160  # of a caption


@dataclasses.dataclass
class Thumbnails:
    """Pictures for the page, each once, until as many bytes are spent as the limit says."""

    limit: int = BUDGET
    uris: list[str] = dataclasses.field(default_factory=list)
    _numbers: dict[tuple[str, int], int | None] = dataclasses.field(default_factory=dict)

    def number(self, name: str, dataset: HashDataset, row: int) -> int | None:
        """Return the number of the thumbnail of a row, or None where there is none."""
        key = name, row
        if key not in self._numbers:
            self._numbers[key] = None
            if sum(map(len, self.uris)) < self.limit:
                with contextlib.suppress(BadImageError, OSError):
                    self.uris.append(as_uri(dataset.images.decode(row)))
                    self._numbers[key] = len(self.uris) - 1
        return self._numbers[key]


def as_uri(pixels: np.ndarray, side: int = SIDE) -> str:
    """Return a picture uint8 [H,W,3], at most ``side`` pixels, as a JPEG in a data URI."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=70, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def gallery(study: Study, queries: int, thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """Return one entry for each dataset and direction; ``queries`` 0 makes none."""
    tasks = list(study.tasks.values()) if queries > 0 else []
    budget, entries = thumbnails.limit, []
    for number, rows in enumerate(tasks, 1):
        thumbnails.limit = budget * number // len(tasks)  # what one leaves, the next may use
        entries.append(_entry(study, rows, queries, thumbnails))
    return entries


def _entry(study: Study, rows: list[Row], queries: int, thumbnails: Thumbnails) -> dict[str, Any]:
    counts = Counter(row.bits for row in rows)
    bits = max(counts, key=lambda k: (counts[k], k))
    best = sorted((row for row in rows if row.bits == bits), key=lambda row: -row.mean)[:METHODS]
    dataset_name, direction = best[0].dataset, best[0].direction
    entry: dict[str, Any] = {"dataset": dataset_name, "direction": direction, "bits": bits}
    runs = {row.name: row.results[0] for row in best}
    try:
        files = {n: codes_file(run.folder, run.metrics, direction) for n, run in runs.items()}
        read = {name: read_codes(file)[:2] for name, file in files.items()}
    except UserError as error:
        return {**entry, "note": str(error)}
    usual = Counter(map(_row_numbers, read.values())).most_common(1)[0][0]
    codes = {name: pair for name, pair in read.items() if _row_numbers(pair) == usual}
    first = next(iter(codes))
    dataset = study.datasets.matching(runs[first], codes[first][0])
    if isinstance(dataset, str):
        return {**entry, "note": f"The pictures are not at hand: {dataset}"}
    shown = _queries(dataset_name, direction, codes, dataset, queries, thumbnails)
    return {**entry, "queries": shown}


def _row_numbers(codes: tuple[CodeSet, CodeSet]) -> tuple[bytes, bytes]:
    """Return the query and the database rows; splits that hold out other rows may agree in them."""
    return codes[0].rows.tobytes(), codes[1].rows.tobytes()


def _queries(
    name: str, direction: str, codes: dict[str, tuple[CodeSet, CodeSet]], dataset: HashDataset,
    count: int, thumbnails: Thumbnails,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return some queries, and the nearest rows by the codes of each method."""
    first = next(iter(codes.values()))[0]
    query_modality, database_modality = sides(direction)
    positions = spread(first, count)
    hits = {
        method: nearest(query, database, positions, direction=direction, top=TOP)
        for method, (query, database) in codes.items()
    }
    entries: list[dict[str, Any]] = []
    for number, position in enumerate(positions):
        methods: list[dict[str, Any]] = [
            {"method": method, "top": [hit._asdict() for hit in lists[number]]}
            for method, lists in hits.items()
        ]
        query = _item(name, dataset, int(first.rows[position]), query_modality, thumbnails)
        if query_modality == "image" and "picture" not in query:
            break  # the budget is spent
        for hit in (hit for method in methods for hit in method["top"]):
            hit.update(_item(name, dataset, hit["row"], database_modality, thumbnails))
        entries.append({"query": query, "methods": methods})
    return entries


def _item(
    name: str, dataset: HashDataset, row: int, modality: str, thumbnails: Thumbnails
) -> dict[str, Any]:
    """Return what the page shows of a row: its classes, and a caption or a thumbnail."""
    labels = np.flatnonzero(dataset.labels[row] > 0)
    classes = ", ".join(dataset.class_names[c] for c in labels[:6])
    item: dict[str, Any] = {"row": row, "classes": classes + (", …" if len(labels) > 6 else "")}
    if modality == "text":
        text = dataset.texts[row][0] if dataset.texts is not None else ""
        return {**item, "text": text[:_CHARACTERS] + ("…" if len(text) > _CHARACTERS else "")}
    number = thumbnails.number(name, dataset, row)
    return item if number is None else {**item, "picture": number}
