"""Captions and images that ``main.py generate`` made for a dataset, by dataset row.

======================== ===========================================================
``captions.jsonl``       ``{"row": r, "text": "..."}``: a caption made from the row's image
``query_images/<r>.png`` an image generated from the text of query row r
``query_captions.jsonl`` ``{"row": r, "text": "..."}``: the caption of that image
``manifest.json``        the models and settings that made them
======================== ===========================================================

A folder with ``pictures.jsonl`` (images of classes, for PZSH) and PZSH's own lists of features are
read by :mod:`dataset.auxiliary.pseudo_images`.

The layout of the released VTPH is read, too: without ``query_images``, ``1.png``, ``2.png``, … for
the query rows in their order, and one ``.txt`` file with a caption per line; without
``captions.jsonl``, ``image_caption.mat`` with the ``index.mat`` that says which pictures its rows
are of. These are found by picture, so the dataset may be prepared from official files.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from dataset.auxiliary.pseudo_images import (
    PICTURES,
    row_name,
    with_feature_list,
    with_pseudo_images,
)
from dataset.base import WITHOUT_QUERIES, AuxiliaryInputs, HashDataset
from dataset.images import FileImages
from dataset.mat import SECOND_CAPTIONS, SECOND_KEYS, read_captions, read_picture_names
from utils.errors import UserError

log = logging.getLogger("hashing")
CAPTIONS, QUERY_IMAGES, QUERY_CAPTIONS = "captions.jsonl", "query_images", "query_captions.jsonl"
MANIFEST = "manifest.json"


def with_generated(dataset: HashDataset, folder: str | Path) -> HashDataset:
    """Return the dataset with the generated captions, images and rows in ``folder``.

    Captions and generated queries become the auxiliary inputs ``second`` and ``virtual``, images of
    classes (or a list of their features, which is a file) ``pseudo`` and generated rows.

    Raises:
        UserError: no such folder, nothing usable in it, a broken line, a row that the dataset does
            not have, a generated image without its caption.
    """
    root = Path(folder).expanduser()
    if root.is_file():
        return with_feature_list(dataset, root)
    if not root.is_dir():
        raise UserError(
            f"data.generated: '{root}' is not a folder; make it with `main.py generate`."
        )
    origins = _origins(root / MANIFEST, dataset)
    if (root / PICTURES).is_file():
        return with_pseudo_images(dataset, root, origins.get("pictures") or {})
    inputs: dict[str, AuxiliaryInputs] = {}
    if (root / CAPTIONS).is_file():
        rows, texts = _read_captions(root / CAPTIONS, len(dataset))
        source = f"captions of pictures, in '{root}'{_origin(origins, 'captions')}"
        inputs["second"] = AuxiliaryInputs(rows, source, texts, parts=WITHOUT_QUERIES)
    elif (root / SECOND_CAPTIONS).is_file():
        inputs["second"] = captions_by_picture(dataset, root)
    source = f"painted pictures, in '{root}'{_origin(origins, 'query_images', 'query_captions')}"
    if (root / QUERY_IMAGES).is_dir():
        inputs["virtual"] = _virtual(root, len(dataset), source)
    elif (root / "1.png").is_file():
        inputs["virtual"] = _released_virtual(root, dataset.split.query, source)
    if not inputs:
        raise UserError(
            f"data.generated: '{root}' holds neither {CAPTIONS} nor {QUERY_IMAGES} nor {PICTURES}, "
            f"nor 1.png or {SECOND_CAPTIONS}; make them with `main.py generate`."
        )
    return dataclasses.replace(dataset, auxiliary={**dataset.auxiliary, **inputs})


def captions_by_picture(dataset: HashDataset, root: Path) -> AuxiliaryInputs:
    """Return the captions in VTPH's ``image_caption.mat`` of the dataset's rows.

    Raises:
        UserError: no ``index.mat`` beside it, files that differ in length, or captions of other
            pictures than the dataset's.
    """
    path, index = root / SECOND_CAPTIONS, root / "index.mat"
    if not index.is_file():
        raise UserError(
            f"'{path}' has a caption for every row of an index.mat, which is not beside it; put it "
            "there, so that each finds its picture."
        )
    names = read_picture_names(index)
    texts = [captions[0] for captions in read_captions(path, len(names), SECOND_KEYS)]
    if len(texts) != len(names):
        raise UserError(
            f"'{path}' has {len(texts)} captions and '{index}' {len(names)} pictures; they must "
            "agree."
        )
    caption_of: dict[str, str] = {}
    for name, text in zip(names, texts, strict=True):
        for key in (name, dataset.picture_key(name)):
            caption_of.setdefault(key, text)
    rows, found = [], []
    for row in range(len(dataset)):
        name = row_name(dataset, row)
        key = name if name in caption_of else dataset.picture_key(name)
        if key in caption_of:
            rows.append(row)
            found.append(caption_of[key])
    if not rows:
        raise UserError(
            f"'{index}' names none of the pictures of dataset '{dataset.name}', '{names[0]}' "
            "first; the captions beside it are of other data."
        )
    log.info("captions of pictures: %s, for %s of %s rows", path, f"{len(rows):,}",
             f"{len(dataset):,}")  # fmt: skip
    source = f"captions of pictures, in '{path}'"
    return AuxiliaryInputs(np.array(rows, np.int64), source, found, parts=WITHOUT_QUERIES)


def _origins(manifest: Path, dataset: HashDataset) -> dict[str, Any]:
    """Return part → the manifest's entry on what made it; ``{}`` without a manifest."""
    if not manifest.is_file():
        return {}
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        described, parts = content["dataset"], content["parts"]
        rows, fingerprint = described["rows"], described["images"]
        origins = {name: part["made_by"] for name, part in parts.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"'{manifest}' is not what `main.py generate` writes ({type(error).__name__}: {error});"
            " generate anew, or remove it."
        ) from error
    if rows != len(dataset):
        raise UserError(
            f"data.generated: '{manifest.parent}' was made for a dataset of {rows} rows, but "
            f"'{dataset.name}' has {len(dataset)}; generate for this one."
        )
    if fingerprint != dataset.images.fingerprint:
        log.warning("'%s' was made from pictures %s, and '%s' has pictures %s: others, or of an "
                    "earlier version that knew them by their times", manifest.parent, fingerprint,
                    dataset.name, dataset.images.fingerprint)  # fmt: skip
    return origins


def _origin(origins: dict[str, Any], *parts: str) -> str:
    entries = {part: origins[part] for part in parts if part in origins}
    return f", made by {json.dumps(entries, sort_keys=True)}" if entries else ""


def _read_captions(path: Path, n_rows: int) -> tuple[np.ndarray, list[str]]:
    """Return rows, ascending, and their texts, of a file of ``{"row": r, "text": "..."}`` lines."""
    captions: dict[int, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # a text may hold other line ends
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' cannot be read as UTF-8 text ({error}).") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            row, text = entry["row"], entry["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'{path}:{number}: a line {{"row": 0, "text": "..."}} is needed; `main.py '
                "generate` mends a file that was cut."
            ) from error
        if not isinstance(row, int) or not 0 <= row < n_rows or not isinstance(text, str):
            raise UserError(
                f"{path}:{number}: row {row!r} is not one of the dataset's 0 to {n_rows - 1}, or "
                "its text is none; it was made for another dataset."
            )
        captions[row] = text
    rows = np.array(sorted(captions), np.int64)
    return rows, [captions[row] for row in rows]


def _virtual(root: Path, n_rows: int, source: str) -> AuxiliaryInputs:
    """Return the generated images in ``query_images`` with their captions."""
    folder = root / QUERY_IMAGES
    generated = sorted(int(p.stem) for p in folder.glob("*.png") if p.stem.isdecimal())
    captions: dict[int, str] = {}
    if (root / QUERY_CAPTIONS).is_file():
        rows, texts = _read_captions(root / QUERY_CAPTIONS, n_rows)
        captions = dict(zip(rows.tolist(), texts, strict=True))
    both = [row for row in generated if row in captions]
    if not both:
        raise UserError(
            f"'{folder}' holds {len(generated)} painted pictures and '{root / QUERY_CAPTIONS}' the "
            f"captions of {len(captions)}, but no row has both; run `main.py generate` to its end."
        )
    return AuxiliaryInputs(
        np.array(both, np.int64),
        source,
        [captions[row] for row in both],
        FileImages([f"{row}.png" for row in both], folder),
        parts=("query",),
    )


def _released_virtual(root: Path, query: np.ndarray, source: str) -> AuxiliaryInputs:
    """Return ``{rank + 1}.png`` with the lines of the folder's one text file."""
    files = sorted(root.glob("*.txt"))
    if len(files) != 1:
        raise UserError(
            f"'{root}' holds 1.png and {len(files)} .txt files; one is needed, with the caption of "
            "picture n in line n."
        )
    texts = files[0].read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if len(texts) != len(query):
        raise UserError(
            f"'{files[0]}' has {len(texts)} lines, but the split has {len(query)} query rows; line "
            "n captions the picture painted for the n-th of them."
        )
    order = np.argsort(query)
    return AuxiliaryInputs(
        query[order],
        source,
        [texts[rank] for rank in order],
        FileImages([f"{rank + 1}.png" for rank in order], root),
        parts=("query",),
    )
