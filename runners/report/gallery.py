"""What the codes retrieve: some queries, and the ten nearest rows of each method.

Per dataset and direction one bit length (the one with most methods; of several, the longest), the
best methods of it, and of each the first seed, where it asks and answers with the same rows as the
others. Rows at equal distance stand in the order of the database. Thumbnails are made until a
budget is spent.
"""

from __future__ import annotations

import base64
import dataclasses
import io
from collections import Counter
from typing import Any

import numpy as np

from common.code_files.run_codes import CodeSet, read_codes
from common.directions import sides
from dataset.base import BadImageError, HashDataset
from runners.evaluation.nearest import nearest, spread
from runners.report.study import Line, Place, Study
from utils.errors import UserError

QUERIES = 6  # of a dataset and direction, unless asked for otherwise
METHODS = 8
TOP = 10
BUDGET = 8_000_000  # bytes of thumbnails as they stand on the page
SIDE = 96  # pixels of a thumbnail
_WORDS = 160  # characters of a caption


@dataclasses.dataclass
class Thumbnails:
    """Pictures for the page, each once, until as many bytes are spent as the limit says."""

    limit: int = BUDGET
    uris: list[str] = dataclasses.field(default_factory=list)
    spent: int = 0
    _places: dict[tuple[str, int], int | None] = dataclasses.field(default_factory=dict)

    def place(self, name: str, dataset: HashDataset, row: int) -> int | None:
        """Return the number of the thumbnail of a row, or None where there is none."""
        key = name, row
        if key not in self._places:
            self._places[key] = self._made(dataset, row)
        return self._places[key]

    def _made(self, dataset: HashDataset, row: int) -> int | None:
        if self.spent >= self.limit:
            return None
        try:
            uri = as_uri(dataset.images.decode(row))
        except (BadImageError, OSError):
            return None
        self.spent += len(uri)
        self.uris.append(uri)
        return len(self.uris) - 1


def as_uri(pixels: np.ndarray, side: int = SIDE) -> str:
    """Return a picture uint8 [H,W,3], at most ``side`` pixels, as a JPEG in a data URI."""
    from PIL import Image

    picture = Image.fromarray(np.asarray(pixels))
    picture.thumbnail((side, side))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=70, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def gallery(study: Study, queries: int, thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """Return one entry for each dataset and direction; ``queries`` 0 makes none."""
    places = list(study.places.items()) if queries > 0 else []
    budget, found = thumbnails.limit, []
    for number, (place, lines) in enumerate(places, 1):
        thumbnails.limit = budget * number // len(places)  # what one leaves, the next may use
        found.append(_entry(study, place, lines, queries, thumbnails))
    return found


def _entry(
    study: Study, place: Place, lines: list[Line], queries: int, thumbnails: Thumbnails
) -> dict[str, Any]:
    counts = Counter(line.row.bits for line in lines)
    bits = max(counts, key=lambda k: (counts[k], k))
    chosen = sorted((x for x in lines if x.row.bits == bits), key=lambda x: -x.row.mean)[:METHODS]
    entry: dict[str, Any] = {"dataset": place[0], "direction": place[1], "bits": bits}
    try:
        read = {x.name: read_codes(x.results[0].folder / "codes.h5")[:2] for x in chosen}
    except UserError as error:
        return {**entry, "note": str(error)}
    usual = Counter(map(_rows, read.values())).most_common(1)[0][0]
    codes = {name: pair for name, pair in read.items() if _rows(pair) == usual}
    first = {line.name: line.results[0] for line in chosen}
    some = next(iter(first))
    dataset = study.datasets.matching(first[some].folder, codes[some][0])
    if isinstance(dataset, str):
        return {**entry, "note": f"The pictures are not at hand: {dataset}"}
    return {**entry, **_shown(place, codes, dataset, queries, thumbnails)}


def _rows(codes: tuple[CodeSet, CodeSet]) -> tuple[bytes, bytes]:
    """Return which rows ask and which answer; splits that hold out other rows may agree in them."""
    return codes[0].rows.tobytes(), codes[1].rows.tobytes()


def _shown(
    place: Place, codes: dict[str, tuple[CodeSet, CodeSet]], dataset: HashDataset, queries: int,
    thumbnails: Thumbnails,
) -> dict[str, Any]:  # fmt: skip
    some = next(iter(codes.values()))[0]
    asks, answers = sides(place[1])
    shown: list[dict[str, Any]] = []
    chosen = spread(some, queries)
    hits = {
        name: nearest(query, database, chosen, direction=place[1], top=TOP)
        for name, (query, database) in codes.items()
    }
    for number, q in enumerate(chosen):
        row = int(some.rows[q])
        found: list[dict[str, Any]] = [
            {"method": name, "top": [hit._asdict() for hit in own[number]]}
            for name, own in hits.items()
        ]
        told = _item(place[0], dataset, row, asks, thumbnails)
        if asks == "image" and "picture" not in told:
            break  # the budget is spent
        for hit in (hit for method in found for hit in method["top"]):
            hit.update(_item(place[0], dataset, hit["row"], answers, thumbnails))
        shown.append({"query": told, "methods": found})
    return {"queries": shown}


def _item(
    name: str, dataset: HashDataset, row: int, modality: str, thumbnails: Thumbnails
) -> dict[str, Any]:
    """Return what the page shows of a row: its classes, and a caption or a thumbnail."""
    marked = np.flatnonzero(dataset.labels[row] > 0)
    classes = ", ".join(dataset.class_names[c] for c in marked[:6])
    told: dict[str, Any] = {"row": row, "classes": classes + (", …" if len(marked) > 6 else "")}
    if modality == "text":
        text = dataset.texts[row][0] if dataset.texts is not None else ""
        return {**told, "text": text[:_WORDS] + ("…" if len(text) > _WORDS else "")}
    picture = thumbnails.place(name, dataset, row)
    return told if picture is None else {**told, "picture": picture}
