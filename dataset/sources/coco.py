"""COCO 2017: Lin et al., ECCV 2014; 123,287 photos of 80 kinds of things, five sentences each.

Rows: train2017, then val2017, each by image id. Labels: a class is on where at least one instance
of it is annotated, crowds included; 122,218 photos have one. Captions in the order of the file.
COCO 2014 has the same photos under other names, so lists of 2014 are read by id.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dataset.preparation import rules
from dataset.preparation.prepared_dataset import prepared
from dataset.preparation.protocol import ListFiles, Protocol, Texts
from dataset.preparation.rows import Rows
from dataset.preparation.source import OfficialFile, RowKind, Source
from dataset.sources import cross_modal_protocols as cross_modal
from dataset.sources import list_protocols
from dataset.tables import read_json
from utils.errors import UserError

PARTS = ("train2017", "val2017")
_HOST = "http://images.cocodataset.org"
_PAGE = "https://cocodataset.org/#download"
# sizes and checksums: as in tensorflow-datasets 4.9.10, url_checksums/coco_captions.txt
_FILES = (
    OfficialFile(
        "annotations_trainval2017.zip",
        unpacks=tuple(
            f"annotations/{k}_{p}.json" for k in ("instances", "captions") for p in PARTS
        ),
        url=f"{_HOST}/annotations/annotations_trainval2017.zip",
        page=_PAGE,
        size=252_907_541,
        checksum="sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        unpacked_size=850_000_000,
    ),
    OfficialFile(
        "val2017.zip",
        unpacks=("val2017",),
        url=f"{_HOST}/zips/val2017.zip",
        page=_PAGE,
        size=815_585_330,
        checksum="sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    ),
    OfficialFile(
        "train2017.zip",
        unpacks=("train2017",),
        url=f"{_HOST}/zips/train2017.zip",
        page=_PAGE,
        size=19_336_861_798,
        checksum="sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
    ),
)
_ROWS = 122_218
_ORDER = "train2017 by picture number, then val2017 by picture number"
_CAPTIONS = Texts("captions of the annotation file, five to seven a picture", several=True)
_ONE = Texts(
    "one caption, drawn once by Python's generator seeded 1 when the .mat is made, over all lines "
    "unlabelled ones included, then cut at its first full stop",
    variant=cross_modal.MITH_TEXTS,
)
_LISTS = Protocol(
    "lists",
    "HashNet, CSQ, by the lists of DeepHash-pytorch",
    rules.by_lists,
    lists=ListFiles("coco_train.txt", "coco_test.txt", "coco_database.txt", database_needed=False),
    published={
        "rows": _ROWS, "classes": 80, "train": 10000, "query": 5000, "database": _ROWS - 5000,
    },
    texts=_CAPTIONS,
    stated=dataclasses.replace(list_protocols.DEEPHASH, contains_train=None),
)  # fmt: skip


@prepared
class Coco(Source):
    """COCO 2017: photos with five captions, 80 labels; made ready by `main.py prepare coco`."""

    name = "coco"
    title = "COCO 2017"
    licence = "annotations CC BY 4.0; photos under Flickr's terms, each with its own licence"
    files = _FILES
    multi_label = True
    row_kind = RowKind(texts=5)
    protocols = (
        *cross_modal.protocols(
            80,
            cross_modal.Kind(
                _ROWS, 5000, 10000, _CAPTIONS, _ORDER, "80 categories in annotation order"
            ),
            cross_modal.mith(
                _ROWS, 5000, 10000, _ONE,
                "the order of their numbers, train2017 before val2017, captions too",
            ),
        ),
        _LISTS,
        list_protocols.fire(80),
        dataclasses.replace(
            _LISTS, name="shc", papers="SHC, by the lists of DeepHash-pytorch",
            stated=list_protocols.SHC, note="SHC's own lists are not released",
        ),
    )  # fmt: skip

    def read(self, root: Path) -> Rows:
        """Read the four annotation files."""
        parts = [_read_part(root, part) for part in PARTS]
        names = [part.class_names for part in parts]
        if names[0] != names[1]:
            raise UserError(
                f"The annotations in '{root}' of {' and '.join(PARTS)} differ in classes."
            )
        counts = [len(part) for part in parts]
        marks = np.repeat(np.arange(2), counts)
        texts = (parts[0].texts or ()) + (parts[1].texts or ())
        return Rows(
            keys=parts[0].keys + parts[1].keys,
            paths=parts[0].paths + parts[1].paths,
            labels=np.concatenate([part.labels for part in parts]),
            class_names=names[0],
            texts=texts,
            variants={cross_modal.MITH_TEXTS: cross_modal.one_sentence(texts)},
            subsets={part: marks == i for i, part in enumerate(PARTS)},
        )

    def list_key(self, path: str) -> str:
        """Return the image id: ``COCO_train2014_000000566612.jpg`` → ``566612``."""
        stem = PurePosixPath(path).stem.rsplit("_")[-1]
        return str(int(stem)) if stem.isascii() and stem.isdigit() else stem


def _read_part(root: Path, part: str) -> Rows:
    """Read the instances and captions of ``train2017`` or ``val2017``."""
    file = root / "annotations" / f"instances_{part}.json"
    captions = root / "annotations" / f"captions_{part}.json"
    try:
        instances = read_json(file)
        images = sorted(instances["images"], key=lambda image: image["id"])
        categories = sorted(instances["categories"], key=lambda category: category["id"])
        row = {image["id"]: number for number, image in enumerate(images)}
        column = {category["id"]: number for number, category in enumerate(categories)}
        labels = np.zeros((len(images), len(categories)), np.uint8)
        for note in instances["annotations"]:
            labels[row[note["image_id"]], column[note["category_id"]]] = 1
        del instances
        return Rows(
            keys=tuple(str(image["id"]) for image in images),
            paths=tuple(f"{part}/{image['file_name']}" for image in images),
            labels=labels,
            class_names=tuple(str(category["name"]) for category in categories),
            texts=_texts(read_json(captions), row),
        )
    except (KeyError, TypeError) as error:
        raise UserError(
            f"'{file}' or '{captions}' is not as COCO publishes it ({type(error).__name__}: "
            f"{error}); unpack annotations_trainval2017.zip again."
        ) from error


def _texts(captions: dict[str, Any], row: dict[int, int]) -> tuple[tuple[str, ...], ...]:
    """Return the captions of every row, with single blanks between words."""
    texts: list[list[str]] = [[] for _ in row]
    for note in captions["annotations"]:
        text = " ".join(note["caption"].split())
        if text:
            texts[row[note["image_id"]]].append(text)
    return tuple(map(tuple, texts))
