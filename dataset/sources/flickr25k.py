"""MIRFlickr-25K: Huiskes & Lew, MIR 2008; 25,000 photos with their users' tags and 38 labels.

Rows: by image number; DCMHT and those who share its files sort the numbers as strings. Labels: the
24 annotations of visible things (``sky``), then the 14 of clearly visible ones (``sky_r1``); the
cross-modal papers use the 24, of which 24,581 photos carry one. Text: the tags of a photo, in their
order, joined by blanks; 20,015 labelled photos have one of the 1,386 tags that occur at least 20
times, and MITH's text has those alone.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from pathlib import Path, PurePosixPath

import numpy as np

from dataset.preparation import rules
from dataset.preparation.prepared_dataset import prepared
from dataset.preparation.protocol import ListFiles, Protocol, Texts, as_strings
from dataset.preparation.rows import Rows
from dataset.preparation.source import OfficialFile, RowKind, Source
from dataset.sources import cross_modal_protocols as cross_modal
from dataset.sources import list_protocols
from dataset.tables import read_lines, row_number
from utils.errors import UserError

LABELS = (
    "animals", "baby", "bird", "car", "clouds", "dog", "female", "flower", "food", "indoor", "lake",
    "male", "night", "people", "plant_life", "portrait", "river", "sea", "sky", "structures",
    "sunset", "transport", "tree", "water",
)  # fmt: skip
CLEAR = (
    "baby", "bird", "car", "clouds", "dog", "female", "flower", "male", "night", "people",
    "portrait", "river", "sea", "tree",
)  # fmt: skip
IMAGES, ANNOTATIONS = "mirflickr", "mirflickr25k_annotations_v080"
COMMON = 20  # times that a tag must occur for `common_tags`
_HOST = "http://press.liacs.nl/mirflickr/mirflickr25k.v3b"
_PAGE = "https://press.liacs.nl/mirflickr/mirdownload.html"
_ALL_TAGS = Texts("all tags of the picture joined by blanks", absent="empty string")
_COMMON_TAGS = Texts(
    "tags joined by blanks",
    kept="only tags of the list of 1386; an unlisted tag stops the script",
    absent="cannot occur: a row without a listed tag is not in the data",
    variant=cross_modal.MITH_TEXTS,
)


@prepared
class Flickr25k(Source):
    """MIRFlickr-25K: photos with tags, 24 labels; made ready by `main.py prepare flickr25k`."""

    name = "flickr25k"
    title = "MIRFlickr-25K"
    licence = "photos under Creative Commons licences of their owners, stated with each"
    files = (
        OfficialFile(
            "mirflickr25k_annotations_v080.zip",
            unpacks=(f"{ANNOTATIONS}/**/animals.txt",),
            into=ANNOTATIONS,
            url=f"{_HOST}/mirflickr25k_annotations_v080.zip",
            page=_PAGE,
            unpacked_size=2_000_000,
        ),
        OfficialFile(
            "mirflickr25k.zip",
            unpacks=(f"{IMAGES}/meta/tags", f"{IMAGES}/im*.jpg"),
            url=f"{_HOST}/mirflickr25k.zip",
            page=_PAGE,
            unpacked_size=3_200_000_000,
        ),
    )
    multi_label = True
    row_kind = RowKind(texts=1)
    protocols = (
        *cross_modal.protocols(
            24,
            cross_modal.Kind(
                24_581, 5000, 10000, _ALL_TAGS,
                "picture numbers sorted as strings (1, 10, 100, 1000, ...)",
                "24 of the annotations without _r1; column order is that of the folder listing",
                as_strings,
            ),
            cross_modal.mith(
                20_015, 2000, 10000, _COMMON_TAGS, "the order of their numbers",
                keep="common_tags",
                unlabelled="not stated; all_labels.txt is not released",
            ),
            columns=LABELS,
        ),
        Protocol(
            "lists",
            "image hashing by the lists of DeepHash-pytorch",
            rules.by_lists,
            keep_unlabelled=True,
            lists=ListFiles("mirflickr_train.txt", "mirflickr_test.txt", "mirflickr_database.txt"),
            published={
                "rows": 25_000, "classes": 38, "train": 4000, "query": 1000, "database": 20_000,
                "unlabelled": 419,
            },
            note="419 rows without a label, 19 of them queries",
            texts=_ALL_TAGS,
            stated=dataclasses.replace(
                list_protocols.DEEPHASH, contains_train=False,
                unlabelled="419 kept: 72 in training, 19 queries, 328 in the database",
            ),
        ),
        list_protocols.fire(24, columns=LABELS),
    )  # fmt: skip

    def read(self, root: Path) -> Rows:
        """Read the annotation files and the tags; every image and annotated number is a row."""
        annotations = _annotations(root)
        names = (*LABELS, *(f"{name}_r1" for name in CLEAR))
        positives = [_numbers(annotations / f"{name}.txt") for name in names]
        images = root / IMAGES
        image_numbers = {
            int(m[1]) for f in images.iterdir() if (m := re.fullmatch(r"im(\d+)\.jpg", f.name))
        }
        numbers = sorted(image_numbers.union(*positives))
        row = {number: i for i, number in enumerate(numbers)}
        labels = np.zeros((len(numbers), len(names)), np.uint8)
        for column, members in enumerate(positives):
            labels[[row[number] for number in members], column] = 1
        tags = [_tags(images / "meta" / "tags" / f"tags{number}.txt") for number in numbers]
        times = collections.Counter(tag for words in tags for tag in set(words))
        listed = {tag for tag in times if times[tag] >= COMMON}
        common = tuple(cross_modal.listed_tags(words, listed) for words in tags)
        return Rows(
            keys=tuple(str(number) for number in numbers),
            paths=tuple(f"{IMAGES}/im{number}.jpg" for number in numbers),
            labels=labels,
            class_names=names,
            texts=tuple((" ".join(words),) if words else () for words in tags),
            subsets={"common_tags": np.array([bool(texts) for texts in common])},
            variants={cross_modal.MITH_TEXTS: common},
        )

    def list_key(self, path: str) -> str:
        """Return the number of the image: ``im17885.jpg`` → ``17885``."""
        return PurePosixPath(path).stem.removeprefix("im")


def _annotations(root: Path) -> Path:
    """Return the folder of the annotation files, which may be nested when unpacked by hand."""
    files = sorted((root / ANNOTATIONS).glob("**/animals.txt"))
    if not files:
        raise UserError(
            f"'{root / ANNOTATIONS}' holds no animals.txt; unpack {ANNOTATIONS}.zip there."
        )
    return files[0].parent


def _numbers(file: Path) -> set[int]:
    lines = read_lines(file)
    return {row_number(line, file, i) for i, line in enumerate(lines) if line}


def _tags(file: Path) -> list[str]:
    return [line for line in read_lines(file) if line] if file.is_file() else []
