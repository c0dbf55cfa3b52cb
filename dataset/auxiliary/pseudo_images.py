"""Pseudo-images: generated images of classes, as auxiliary inputs and as rows to train on.

What ``main.py generate DATASET --method pzsh`` made is given as ``data.generated=DIR``. From it a
dataset gets

``auxiliary["pseudo"]``
    an image of its class for every training row: the one generated from the row itself, if images
    were generated from rows, else those of the class in turn
``generated`` (in results: ``tgi``)
    rows beyond the dataset's own, in no part of its split: the images of unseen classes, with their
    labels, for methods that train on them as well

Images are not encoded again if the encoder of the run computed ``features.h5`` in the folder.

PZSH's own lists are read too (``data.generated=FILE.txt``). A line holds a path, the labels (0 or 1
for each class, with blanks), perhaps further columns, and last the feature of the pseudo-image,
separated by tabs; lines of fewer than three columns are skipped. The path is that of a row of the
dataset, or of an image below the folder of the list, which becomes a further row.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from dataset.base import AuxiliaryInputs, GeneratedRows, HashDataset
from dataset.images import FileImages
from dataset.stacked import StackedImages
from utils.errors import UserError, nearest

log = logging.getLogger("hashing")
PICTURES, FEATURES = "pictures.jsonl", "features.h5"
PSEUDO, TGI = "pseudo", "tgi"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A pseudo-image: its file relative to the folder, the number of its class, its prompt.

    ``row`` is the dataset's row that it was generated from, or None.
    """

    file: str
    label: int
    prompt: str
    row: int | None = None


def with_pseudo_images(dataset: HashDataset, root: Path, made_by: dict[str, Any]) -> HashDataset:
    """Return the dataset with the pseudo-images in ``root``.

    Args:
        dataset: the images are of its classes.
        root: the folder.
        made_by: the manifest's entry on the images.

    Raises:
        UserError: a broken line, an unknown class, a picture that is not there.
    """
    pictures = read_pictures(root, dataset)
    paired, added = pair_rows(dataset, pictures)
    words = {f: v for f, v in made_by.items() if f in ("model", "fingerprint", "prompt", "seed")}
    source = f"pseudo-images, in '{root}'" + (
        f", made by {json.dumps(words, sort_keys=True)}" if words else ""
    )
    return _joined(dataset, root, paired, added, source, _features(root / FEATURES))


def read_pictures(root: Path, dataset: HashDataset) -> list[Picture]:
    """Return the pictures that ``pictures.jsonl`` lists, by class and number.

    Raises:
        UserError: a broken line, an unknown class, a picture that is not there.
    """
    path, found = root / PICTURES, {}
    numbers = {name: c for c, name in enumerate(dataset.class_names)}
    for place, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            name, file, prompt = entry["class"], str(entry["file"]), str(entry["prompt"])
            key = (str(name), int(entry["number"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}:{place}: a line with class, number, file and prompt is needed; `main.py "
                "generate` mends a file that was cut."
            ) from error
        if name not in numbers:
            raise UserError(
                f"{path}:{place}: dataset '{dataset.name}' has no class '{name}'."
                f"{nearest(str(name), numbers)} The pictures were made for another dataset."
            )
        if not (root / file).is_file():
            raise UserError(
                f"{path}:{place}: the picture '{file}' is not there; `main.py generate` makes it."
            )
        found[key] = Picture(file, numbers[name], prompt, entry.get("row"))
    if not found:
        raise UserError(f"'{path}' lists no picture; run `main.py generate` to its end.")
    return [found[key] for key in sorted(found, key=lambda key: (numbers[key[0]], key[1]))]


def pair_rows(
    dataset: HashDataset, pictures: list[Picture]
) -> tuple[dict[int, Picture], list[Picture]]:
    """Return training row → its picture, and the pictures of unseen classes.

    A row takes the first picture generated from it, else the next one of its first class that has
    any.
    """
    seen = set(dataset.seen_classes or range(len(dataset.class_names)))
    own: dict[int, Picture] = {}
    by_class: dict[int, list[Picture]] = {}
    for picture in pictures:
        if picture.label in seen:
            by_class.setdefault(picture.label, []).append(picture)
            if picture.row is not None:
                own.setdefault(picture.row, picture)
    taken = dict.fromkeys(by_class, 0)
    paired = {}
    for row in dataset.split.train.tolist():
        classes = [int(c) for c in np.flatnonzero(dataset.labels[row]) if c in by_class]
        if row in own:
            paired[row] = own[row]
        elif classes:
            mates = by_class[classes[0]]
            paired[row] = mates[taken[classes[0]] % len(mates)]
            taken[classes[0]] += 1
    return paired, [p for p in pictures if p.label not in seen]


@dataclasses.dataclass(frozen=True)
class _Features:
    """Features by file, and a hash of the encoder that computed them."""

    rows: dict[str, int]
    values: np.ndarray
    encoder: str


def _joined(
    dataset: HashDataset, root: Path, paired: dict[int, Picture], added: list[Picture],
    source: str, computed: _Features | None,
) -> HashDataset:  # fmt: skip
    """Return the dataset with ``added`` as generated rows, and pseudo-images of all that train."""
    first = len(dataset)
    every = {**paired, **{first + i: picture for i, picture in enumerate(added)}}
    labels = np.zeros((len(added), dataset.labels.shape[1]), np.float32)
    labels[np.arange(len(added)), [p.label for p in added]] = 1
    prompts = [p.prompt for p in added]
    images = FileImages([p.file for p in added], root)
    grown = _with_rows(dataset, images, labels, prompts)
    auxiliary = dict(dataset.auxiliary)
    rows = sorted(every if paired else [])  # all training rows have one, or none has
    if rows:
        chosen = [every[row] for row in rows]
        files = [p.file for p in chosen]
        features = None
        if computed is not None and all(file in computed.rows for file in files):
            features = computed.values[[computed.rows[file] for file in files]]
        auxiliary[PSEUDO] = AuxiliaryInputs(
            np.array(rows, np.int64), source, [p.prompt for p in chosen], FileImages(files, root),
            parts=("train",), ahead=True, features=features,
            encoder=computed.encoder if computed is not None else "",
        )  # fmt: skip
    generated = _generated_rows(first, labels, source) if added else None
    return dataclasses.replace(grown, auxiliary=auxiliary, generated=generated)


def _generated_rows(first: int, labels: np.ndarray, source: str) -> GeneratedRows:
    classes = int(labels.any(0).sum())
    source = f"{len(labels):,} {source}, of {classes} unseen classes"
    return GeneratedRows(TGI, np.arange(first, first + len(labels)), source)


def _with_rows(
    dataset: HashDataset, images: FileImages, labels: np.ndarray, texts: list[str]
) -> HashDataset:
    """Return the dataset with rows added at its end; no part of its split names them."""
    if len(labels) == 0:
        return dataset
    extras = {
        name: np.concatenate([array, np.zeros((len(labels), *array.shape[1:]), array.dtype)])
        for name, array in dataset.extras.items()
    }
    return dataclasses.replace(
        dataset,
        images=StackedImages([dataset.images, images]),
        labels=np.concatenate([dataset.labels, labels]),
        texts=None if dataset.texts is None else [*dataset.texts, *((text,) for text in texts)],
        extras=extras,
    )


def _features(path: Path) -> _Features | None:
    """Read ``features.h5``, if it is there."""
    if not path.is_file():
        return None
    import h5py

    try:
        with h5py.File(path, "r") as file:
            names = [str(name) for name in file["file"].asstr()[:]]
            values, encoder = file["pooled"][:], str(file.attrs["encoder"])
    except (OSError, KeyError, TypeError) as error:
        raise UserError(
            f"'{path}' is not what `main.py generate` writes ({error}); remove it, and the "
            "pictures are encoded by the run."
        ) from error
    return _Features({name: i for i, name in enumerate(names)}, values, encoder)


def with_feature_list(dataset: HashDataset, path: Path) -> HashDataset:
    """Return the dataset with the features and further rows of a list of PZSH's.

    Raises:
        UserError: a broken line, or one whose picture is nowhere.
    """
    names = _row_names(dataset)
    rows: list[int] = []
    features: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    files: list[str] = []
    with open(path, encoding="utf-8") as stream:
        for place, line in enumerate(stream, 1):
            cells = line.rstrip("\r\n").split("\t")
            if len(cells) < 3:
                continue
            where = f"{path}:{place}"
            label, feature = _numbers(cells[1], where), _numbers(cells[-1], where)
            if len(label) != dataset.labels.shape[1]:
                raise UserError(
                    f"{where}: {len(label)} labels, but dataset '{dataset.name}' has "
                    f"{dataset.labels.shape[1]} classes; the list is of another dataset."
                )
            if features and len(feature) != len(features[0]):
                raise UserError(
                    f"{where}: a feature of {len(feature)} numbers after some of "
                    f"{len(features[0])}; every line needs one of the same encoder."
                )
            row = names.get(cells[0])
            if row is None:
                if not (path.parent / cells[0]).is_file():
                    raise UserError(
                        f"{where}: '{cells[0]}' is no picture of dataset '{dataset.name}', nor a "
                        f"file below '{path.parent}'."
                    )
                row = len(dataset) + len(files)
                files.append(cells[0])
                labels.append(label)
            rows.append(row)
            features.append(feature)
    if not features:
        raise UserError(f"'{path}' has no line of path, labels and feature, separated by tabs.")
    return _with_list(dataset, path, np.array(rows), np.stack(features), files, labels)


def _with_list(
    dataset: HashDataset, path: Path, rows: np.ndarray, features: np.ndarray, files: list[str],
    labels: list[np.ndarray],
) -> HashDataset:  # fmt: skip
    rows, first = np.unique(rows, return_index=True)
    source = f"features listed in '{path}'"
    pseudo = AuxiliaryInputs(rows, source, parts=("train",), ahead=True, features=features[first])
    generated = None
    if files:
        added = np.stack(labels).astype(np.float32)
        generated = _generated_rows(len(dataset), added, f"pictures and {source}")
        texts = [""] * len(files)
        dataset = _with_rows(dataset, FileImages(files, path.parent), added, texts)
    auxiliary = {**dataset.auxiliary, PSEUDO: pseudo}
    return dataclasses.replace(dataset, auxiliary=auxiliary, generated=generated)


def _row_names(dataset: HashDataset) -> dict[str, int]:
    return {row_name(dataset, row): row for row in range(len(dataset))}


def row_name(dataset: HashDataset, row: int) -> str:
    """Return how lists call the picture of ``row``: its path below the dataset's root."""
    images = dataset.images
    return images.names[row] if isinstance(images, FileImages) else images.name(row)


def _numbers(cell: str, where: str) -> np.ndarray:
    try:
        return np.array(cell.split(), np.float32)
    except ValueError as error:
        raise UserError(f"{where}: '{cell[:20]}…' is not a list of numbers.") from error
