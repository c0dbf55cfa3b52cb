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
dataset (in whatever folder the list has it), or of an image below the folder of the list, which
becomes a further row. ``dataset=lists`` and the splits called ``lists`` of zero-shot datasets do so
with the list that they train on, without being asked.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset.base import AuxiliaryInputs, GeneratedRows, HashDataset, ImageSource
from dataset.images import FileImages
from dataset.preparation.lists import ListedRows
from dataset.stacked import StackedImages
from dataset.tables import one_hot
from utils.errors import UserError, nearest
from utils.hdf5_file import open_hdf5

log = logging.getLogger("hashing")
PICTURES, FEATURES = "pictures.jsonl", "features.h5"
PSEUDO, TGI = "pseudo", "tgi"


@dataclasses.dataclass(frozen=True)
class PseudoImage:
    """A pseudo-image: its file relative to the folder, the number of its class, its prompt.

    ``row`` is the dataset's row that it was generated from, or None.
    """

    file: str
    label: int
    prompt: str
    row: int | None = None


def with_pseudo_images(dataset: HashDataset, root: Path, origin: dict[str, Any]) -> HashDataset:
    """Return the dataset with the pseudo-images in ``root``; ``origin``: the manifest's entry.

    Raises:
        UserError: a broken line, an unknown class, a picture that is not there.
    """
    paired, added = pair_rows(dataset, read_pseudo_images(root, dataset))
    words = {f: v for f, v in origin.items() if f in ("model", "fingerprint", "prompt", "seed")}
    source = f"pseudo-images, in '{root}'" + (
        f", made by {json.dumps(words, sort_keys=True)}" if words else ""
    )
    images_of = {**paired, **dict(enumerate(added, len(dataset)))}
    rows = sorted(images_of if paired else [])  # all training rows have one, or none has
    auxiliary = dict(dataset.auxiliary)
    computed, encoder = _features(root / FEATURES)
    if rows:
        images = [images_of[row] for row in rows]
        files = [image.file for image in images]
        features = None
        if all(file in computed for file in files):
            features = np.stack([computed[file] for file in files])
        auxiliary[PSEUDO] = AuxiliaryInputs(
            np.array(rows, np.int64), source, [image.prompt for image in images],
            FileImages(files, root), parts=("train",), ahead=True, features=features,
            encoder=encoder,
        )  # fmt: skip
    labels = one_hot([image.label for image in added], dataset.labels.shape[1]).astype(np.float32)
    files, prompts = [image.file for image in added], [image.prompt for image in added]
    grown = with_rows(dataset, FileImages(files, root), labels, prompts, source)
    return dataclasses.replace(grown, auxiliary=auxiliary)


def read_pseudo_images(root: Path, dataset: HashDataset) -> list[PseudoImage]:
    """Return the pseudo-images that ``pictures.jsonl`` lists, by class and number.

    Raises:
        UserError: a broken line, an unknown class, a picture that is not there.
    """
    path, images = root / PICTURES, {}
    numbers = {name: c for c, name in enumerate(dataset.class_names)}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            name, file, prompt = entry["class"], str(entry["file"]), str(entry["prompt"])
            key = (str(name), int(entry["number"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}:{number}: a line with class, number, file and prompt is needed; `main.py "
                "generate` mends a file that was cut."
            ) from error
        if name not in numbers:
            raise UserError(
                f"{path}:{number}: dataset '{dataset.name}' has no class '{name}'."
                f"{nearest(str(name), numbers)} The pictures were made for another dataset."
            )
        if not (root / file).is_file():
            raise UserError(
                f"{path}:{number}: the picture '{file}' is not there; `main.py generate` makes it."
            )
        images[key] = PseudoImage(file, numbers[name], prompt, entry.get("row"))
    if not images:
        raise UserError(f"'{path}' lists no picture; run `main.py generate` to its end.")
    return [images[key] for key in sorted(images, key=lambda key: (numbers[key[0]], key[1]))]


def pair_rows(
    dataset: HashDataset, images: list[PseudoImage]
) -> tuple[dict[int, PseudoImage], list[PseudoImage]]:
    """Return training row → its pseudo-image, and the pseudo-images of unseen classes.

    A row takes the first image generated from it, else the next one of its first class that has
    any.
    """
    seen = set(dataset.seen_classes or range(len(dataset.class_names)))
    from_row: dict[int, PseudoImage] = {}
    by_class: dict[int, list[PseudoImage]] = {}
    for image in images:
        if image.label in seen:
            by_class.setdefault(image.label, []).append(image)
            if image.row is not None:
                from_row.setdefault(image.row, image)
    next_of = {label: itertools.cycle(of_class) for label, of_class in by_class.items()}
    paired = {}
    for row in dataset.split.train.tolist():
        classes = [int(c) for c in np.flatnonzero(dataset.labels[row]) if c in by_class]
        if row in from_row:
            paired[row] = from_row[row]
        elif classes:
            paired[row] = next(next_of[classes[0]])
    return paired, [image for image in images if image.label not in seen]


def with_rows(
    dataset: HashDataset, images: ImageSource, labels: np.ndarray, texts: list[str], source: str
) -> HashDataset:
    """Return the dataset with generated rows at its end; no part of its split names them."""
    if len(labels) == 0:
        return dataclasses.replace(dataset, generated=None)
    extras = {
        name: np.concatenate([array, np.zeros((len(labels), *array.shape[1:]), array.dtype)])
        for name, array in dataset.extras.items()
    }
    rows = np.arange(len(dataset), len(dataset) + len(labels))
    source = f"{len(labels):,} {source}, of {int(labels.any(0).sum())} unseen classes"
    return dataclasses.replace(
        dataset,
        images=StackedImages([dataset.images, images]),
        labels=np.concatenate([dataset.labels, labels]),
        texts=None if dataset.texts is None else [*dataset.texts, *((text,) for text in texts)],
        extras=extras,
        generated=GeneratedRows(TGI, rows, source),
    )


def _features(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """Return file → feature, and a hash of the encoder; nothing without ``features.h5``."""
    if not path.is_file():
        return {}, ""
    try:
        with open_hdf5(path) as file:
            features = dict(zip(file["file"].asstr()[:], file["pooled"][:], strict=True))
            return features, str(file.attrs["encoder"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"'{path}' is not what `main.py generate` writes ({error}); remove it, and the "
            "pictures are encoded by the run."
        ) from error


def with_feature_list(dataset: HashDataset, path: Path) -> HashDataset:
    """Return the dataset with the features and further rows of a list of PZSH's.

    Raises:
        UserError: a broken line, or one whose picture is nowhere.
    """
    listed: list[str] = []
    labels: list[np.ndarray] = []
    features: list[np.ndarray] = []
    with open(path, encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            cells = line.rstrip("\r\n").split("\t")
            if len(cells) < 3:
                continue
            location = f"{path}:{number}"
            label, feature = _numbers(cells[1], location), _numbers(cells[-1], location)
            if len(label) != dataset.labels.shape[1]:
                raise UserError(
                    f"{location}: {len(label)} labels, but dataset '{dataset.name}' has "
                    f"{dataset.labels.shape[1]} classes; the list is of another dataset."
                )
            if features and len(feature) != len(features[0]):
                raise UserError(
                    f"{location}: a feature of {len(feature)} numbers after some of "
                    f"{len(features[0])}; every line needs one of the same encoder."
                )
            listed.append(cells[0])
            labels.append(label)
            features.append(feature)
    if not features:
        raise UserError(f"'{path}' has no line of path, labels and feature, separated by tabs.")
    rows = ListedRows(tuple(listed), np.stack(labels), np.stack(features), path)
    return with_listed_rows(dataset, rows, [path.parent])


def with_listed_rows(
    dataset: HashDataset, listed: ListedRows, folders: Sequence[Path]
) -> HashDataset:
    """Return the dataset with the features and further rows of a training list.

    A path is that of a row, else its key is that of a row with the same labels, else the path is
    that of an image below one of ``folders``: a further row.

    Raises:
        UserError: a path that is nothing of these.
    """
    names = [row_name(dataset, row) for row in range(len(dataset))]
    row_of = {name: row for row, name in enumerate(names)}
    row_with_key = {dataset.picture_key(name): row for row, name in enumerate(names)}
    rows: list[int] = []
    files: list[str] = []
    further: list[np.ndarray] = []
    for path, label in zip(listed.paths, listed.labels, strict=True):
        row = row_of.get(path)
        if row is None:
            row = row_with_key.get(dataset.picture_key(path))
            if row is not None and not np.array_equal(dataset.labels[row], label):
                row = None
        if row is None:
            file = next((f / path for f in folders if (f / path).is_file()), None)
            if file is None:
                raise UserError(
                    f"'{listed.file}': '{path}' is no picture of dataset '{dataset.name}', nor a "
                    f"file below {' or '.join(repr(str(f)) for f in folders)}."
                )
            row = len(dataset) + len(files)
            files.append(str(file.resolve()))
            further.append(label)
        rows.append(row)
    content = "features " if listed.features is not None else ""
    source = f"{content}listed in '{listed.file}'"
    auxiliary = dict(dataset.auxiliary)
    if listed.features is not None:
        numbers, first = np.unique(rows, return_index=True)
        features = listed.features[first]
        auxiliary[PSEUDO] = AuxiliaryInputs(
            numbers, source, parts=("train",), ahead=True, features=features
        )
    labels = np.stack(further).astype(np.float32) if further else np.empty((0, 0))
    colour = dataset.images.colour if isinstance(dataset.images, FileImages) else "release"
    images, texts = FileImages(files, folders[0], colour=colour), [""] * len(files)
    further_source = f"pictures and {source}" if content else f"pictures {source}"
    grown = with_rows(dataset, images, labels, texts, further_source)
    return dataclasses.replace(grown, auxiliary=auxiliary)


def row_name(dataset: HashDataset, row: int) -> str:
    """Return how lists call the picture of ``row``: its path below the dataset's root."""
    images = dataset.images
    return images.names[row] if isinstance(images, FileImages) else images.name(row)


def _numbers(cell: str, location: str) -> np.ndarray:
    try:
        return np.array(cell.split(), np.float32)
    except ValueError as error:
        raise UserError(f"{location}: '{cell[:20]}…' is not a list of numbers.") from error
