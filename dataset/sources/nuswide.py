"""NUS-WIDE: Chua et al., CIVR 2009; 269,648 photos from Flickr with tags and 81 concepts.

Rows: in the order of ``Imagelist.txt``. Labels: the files ``AllLabels/Labels_<concept>.txt``, by
name. Text: a photo's tags as in ``All_Tags.txt``, found by Flickr's number of the photo, joined by
blanks; ``123456`` where there is none. 195,834 photos carry one of the 21 most frequent concepts;
190,421 of them have one of the 1,000 tags of ``TagList1k.txt``, and MITH's text has those alone.

The photos are no longer offered for download; they are read as ``Flickr/<word>/<name>`` (the
official layout) or from one folder as ``images/<name>``.
"""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path, PurePosixPath

import numpy as np

from dataset.preparation import rules
from dataset.preparation.prepared_dataset import prepared
from dataset.preparation.protocol import ListFiles, Protocol, Texts
from dataset.preparation.rows import Rows
from dataset.preparation.source import OfficialFile, RowKind, Source
from dataset.sources import cross_modal_protocols as cross_modal
from dataset.sources import list_protocols
from dataset.tables import read_bits, read_lines
from utils.errors import UserError

CONCEPTS_21 = (
    "animal", "beach", "buildings", "clouds", "flowers", "grass", "lake", "mountain", "ocean",
    "person", "plants", "reflection", "road", "rocks", "sky", "snow", "sunset", "tree", "vehicle",
    "water", "window",
)  # fmt: skip
_PAGE = "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html"
_LABELS = ("Groundtruth/AllLabels", "AllLabels")
_ALL_TAGS = Texts("all tags of the picture joined by blanks", absent="123456", when_none="123456")
_LISTED_TAGS = Texts(
    "tags joined by blanks",
    kept="only tags of the list of 1000; an unlisted tag stops the script",
    absent="cannot occur: a row without a listed tag is not in the data",
    variant=cross_modal.MITH_TEXTS,
)


@prepared
class NusWide(Source):
    """NUS-WIDE: photos with tags, 21 labels of 81; made ready by `main.py prepare nuswide`."""

    name = "nuswide"
    title = "NUS-WIDE"
    licence = "lists and labels for research; photos belong to their owners on Flickr"
    files = (
        OfficialFile("Groundtruth.zip", unpacks=("|".join(_LABELS),), page=_PAGE),
        OfficialFile("ImageList.zip", unpacks=("ImageList/Imagelist.txt",), page=_PAGE),
        OfficialFile(
            "NUS_WID_Tags.zip",
            unpacks=("NUS_WID_Tags/All_Tags.txt", "NUS_WID_Tags/TagList1k.txt"),
            page=_PAGE,
        ),
        OfficialFile("Flickr.zip", unpacks=("Flickr|images",), page=_PAGE),
    )
    multi_label = True
    row_kind = RowKind(texts=1)
    protocols = (
        *cross_modal.protocols(
            21,
            cross_modal.Kind(
                195_834, 5000, 10000, _ALL_TAGS, "the official image list, unused rows left out",
                "21 most frequent concepts, in the order of the label list",
            ),
            cross_modal.mith(
                190_421, 2100, 10500, _LISTED_TAGS, "the order of Imagelist.txt",
                keep="listed_tags",
                unlabelled="not stated; all_labels.txt is not released",
            ),
            columns=CONCEPTS_21,
        ),
        Protocol(
            "lists",
            "image hashing (100 queries, 500 training rows per concept) by the lists of "
            "DeepHash-pytorch, nuswide_21",
            rules.by_lists,
            classes=CONCEPTS_21,
            lists=ListFiles(
                "nuswide_21_train.txt", "nuswide_21_test.txt", "nuswide_21_database.txt",
                database_needed=False,
            ),
            published={"classes": 21, "train": 10500, "query": 2100, "database": 193_734},
            texts=_ALL_TAGS,
            stated=list_protocols.DEEPHASH,
        ),
        Protocol(
            "lists_81",
            "HashNet, CSQ, by the lists of DeepHash-pytorch, nuswide_81_m",
            rules.by_lists,
            lists=ListFiles(
                "nuswide_81_m_train.txt", "nuswide_81_m_test.txt", "nuswide_81_m_database.txt"
            ),
            published={"classes": 81, "train": 10_000, "query": 5000},
            texts=_ALL_TAGS,
            stated=dataclasses.replace(list_protocols.DEEPHASH, contains_train=None),
        ),
        list_protocols.fire(21, columns=CONCEPTS_21),
    )  # fmt: skip

    def read(self, root: Path) -> Rows:
        """Read the list of images, the concepts and the tags."""
        file = root / "ImageList" / "Imagelist.txt"
        names = [line.replace("\\", "/") for line in read_lines(file)]
        ids = [self.list_key(name) for name in names]
        times = collections.Counter(ids)
        labels, concepts = _labels(root, len(names))
        tags = _tags(root / "NUS_WID_Tags" / "All_Tags.txt")
        listed = set(read_lines(root / "NUS_WID_Tags" / "TagList1k.txt"))
        row_tags = [tags.get(number, []) for number in ids]
        kept = tuple(cross_modal.listed_tags(words, listed) for words in row_tags)
        if not any(row_tags):
            raise UserError(f"'{root / 'NUS_WID_Tags'}' has no tags of the pictures in '{file}'.")
        return Rows(
            # a photo that is listed twice has its full name as its key
            keys=tuple(
                number if times[number] == 1 else PurePosixPath(name).stem
                for number, name in zip(ids, names, strict=True)
            ),
            paths=_paths(root, names),
            labels=labels,
            class_names=concepts,
            texts=tuple((" ".join(words),) if words else () for words in row_tags),
            subsets={"listed_tags": np.array([bool(texts) for texts in kept])},
            variants={cross_modal.MITH_TEXTS: kept},
        )

    def list_key(self, path: str) -> str:
        """Return Flickr's number of the photo, the second part of its name.

        >>> NusWide().list_key("images/0484_1544502940.jpg")
        '1544502940'
        >>> NusWide().list_key("images/36051_1116992165_ab0704971e_m.jpg")
        '1116992165'
        """
        stem = PurePosixPath(path).stem
        parts = stem.split("_")
        return parts[1] if len(parts) > 1 else stem


def _labels(root: Path, n_rows: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return uint8 [N,C] and the names of the concepts."""
    folder = next((root / path for path in _LABELS if (root / path).is_dir()), root / _LABELS[0])
    files = {path.stem.removeprefix("Labels_"): path for path in folder.glob("Labels_*.txt")}
    if not files:
        raise UserError(f"'{folder}' holds no Labels_<concept>.txt; unpack Groundtruth.zip there.")
    concepts = tuple(sorted(files))
    labels = np.zeros((n_rows, len(concepts)), np.uint8)
    for column, concept in enumerate(concepts):
        bits = read_bits(files[concept])
        if len(bits) != n_rows:
            raise UserError(
                f"'{files[concept]}' has {len(bits)} lines, but Imagelist.txt {n_rows}; they must "
                "agree."
            )
        labels[:, column] = bits
    return labels, concepts


def _tags(file: Path) -> dict[str, list[str]]:
    """Return Flickr's number → tags, from lines ``number tag tag …``."""
    lines = (line.split() for line in read_lines(file))
    return {words[0]: words[1:] for words in lines if words}


def _paths(root: Path, names: list[str]) -> tuple[str, ...]:
    """Return the paths of the images, in the official layout or in one folder."""
    if (root / "Flickr").is_dir():
        return tuple(f"Flickr/{name}" for name in names)
    return tuple(f"images/{PurePosixPath(name).name}" for name in names)
