"""Animals with Attributes 2: Xian et al., TPAMI 2019; 37,322 photos of 50 animals, 85 attributes.

Rows: by class, in alphabetical order, then by file name, as in ``AwA2-filenames.txt``, the order of
xlsa17. Attributes: the continuous matrix, 0..100, divided by 100; -0.01 marks a missing value.
Columns follow ``classes.txt``.
"""

from __future__ import annotations

from pathlib import Path

from dataset.class_attributes import awa_attributes
from dataset.preparation.prepared_dataset import prepared
from dataset.preparation.rows import Attributes, Rows
from dataset.preparation.source import OfficialFile, RowKind, Source
from dataset.sources import xlsa17
from dataset.sources import zero_shot_protocols as zero_shot
from dataset.tables import one_hot, read_lines, read_pairs
from utils.errors import UserError

FOLDER = "Animals_with_Attributes2"
IMAGES = f"{FOLDER}/JPEGImages"
FILE_NAMES = f"{FOLDER}/Features/ResNet101/AwA2-filenames.txt"
XLSA17 = "AWA2"
_HOST = "https://cvml.ista.ac.at/AwA2"
_TABLES = ("classes.txt", "predicates.txt", "predicate-matrix-continuous.txt", "trainclasses.txt")


@prepared
class Awa2(Source):
    """Animals with Attributes 2: 50 animals, 85 attributes; by `main.py prepare awa2`."""

    name = "awa2"
    title = "Animals with Attributes 2"
    licence = "photos under free licences of their owners, each stated in AwA2-data.zip"
    files = (
        OfficialFile(
            "AwA2-data.zip",
            unpacks=(f"{IMAGES}/*/*.jpg",),
            url=f"{_HOST}/AwA2-data.zip",
            page=f"{_HOST}/",
            unpacked_size=14_000_000_000,
        ),
        # not needed where the large archive holds the tables, as in some releases
        OfficialFile(
            "AwA2-base.zip",
            unpacks=tuple(f"{FOLDER}/{table}" for table in _TABLES),
            url=f"{_HOST}/AwA2-base.zip",
            page=f"{_HOST}/",
            needed=False,
        ),
        xlsa17.archive(XLSA17),
    )
    row_kind = RowKind(attributes=85)
    protocols = zero_shot.protocols(
        rows=37_322, classes=50, seen=40, train=100, query=100,
        trainval=23_527, test_seen=5_882, test_unseen=7_913, unseen=10,
    )  # fmt: skip

    def read(self, root: Path) -> Rows:
        """Read the classes, the attributes and the names of the images."""
        folder = root / FOLDER
        missing = [table for table in _TABLES if not (folder / table).is_file()]
        if missing:
            raise UserError(
                f"'{folder / missing[0]}' does not exist; put AwA2-base.zip, from {_HOST}/, in "
                f"'{root}'."
            )
        names = tuple(name for _, name in read_pairs(folder / "classes.txt"))
        images = _images(root)
        column = {name: column for column, name in enumerate(names)}
        unknown = sorted({animal for animal, _ in images} - set(names))
        if unknown:
            raise UserError(f"'{root / IMAGES}' has pictures of '{unknown[0]}': no class.")
        labels = one_hot([column[animal] for animal, _ in images], len(names))
        subsets = xlsa17.subsets(root, XLSA17, labels)
        seen = tuple(name for name in read_lines(folder / "trainclasses.txt") if name)
        return Rows(
            keys=tuple(file.removesuffix(".jpg") for _, file in images),
            paths=tuple(f"{IMAGES}/{animal}/{file}" for animal, file in images),
            labels=labels,
            class_names=names,
            attributes=awa_attributes(folder),
            class_sets={
                zero_shot.STANDARD: seen, **xlsa17.class_sets(subsets, labels, names)
            },
            subsets=subsets,
        )  # fmt: skip

    def attributes(self, root: Path) -> tuple[Attributes, ...]:
        """Return the publisher's matrix and xlsa17's."""
        return xlsa17.statements(root, XLSA17, awa_attributes(root / FOLDER), 100)


def _images(root: Path) -> list[tuple[str, str]]:
    """Return (animal, file name) of all images, in the order of xlsa17."""
    if (root / FILE_NAMES).is_file():
        files = [file for file in read_lines(root / FILE_NAMES) if file]
        return [(file.rpartition("_")[0], file) for file in files]
    paths = (root / IMAGES).glob("*/[!.]*.jpg")  # no "._…" files, which macOS adds
    return sorted((path.parent.name, path.name) for path in paths)
