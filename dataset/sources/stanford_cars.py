"""Stanford Cars: Krause et al., 3dRR 2013; 16,185 photos of 196 models of cars.

Rows: ``cars_train``, then ``cars_test``, each in the order of its annotations. The layout with all
photos in ``car_ims`` is not read: it renumbers them, so that equal seeds would draw other rows.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePosixPath

import numpy as np

from dataset.preparation.prepared_dataset import prepared
from dataset.preparation.rows import Rows
from dataset.preparation.source import OfficialFile, Source
from dataset.sources import fine_grained, list_protocols
from dataset.tables import cell_words, one_hot
from utils.errors import UserError
from utils.mat_file import read_variable

LABELS = "cars_test_annos_withlabels.mat"
_PAGE = "https://ai.stanford.edu/~jkrause/cars/car_dataset.html (also kept by others, e.g. Kaggle)"


@prepared
class StanfordCars(Source):
    """Stanford Cars: 16,185 photos, 196 models; by `main.py prepare stanford_cars`."""

    name = "stanford_cars"
    title = "Stanford Cars"
    licence = "non-commercial research; photos belong to their owners"
    # Sizes and checksums: as in tensorflow-datasets 4.9.10, url_checksums/cars196.txt. No address:
    # the publisher's host no longer offers the files.
    files = (
        OfficialFile(
            "car_devkit.tgz",
            unpacks=("devkit/cars_train_annos.mat", "devkit/cars_meta.mat"),
            page=_PAGE,
            size=330_960,
            checksum="sha256:b97deb463af7d58b6bfaa18b2a4de9829f0f79e8ce663dfa9261bf7810e9accd",
        ),
        OfficialFile(
            LABELS,
            unpacks=(f"{LABELS}|devkit/{LABELS}",),
            page=_PAGE,
            size=185_758,
            checksum="sha256:790f75be8ea34eeded134cc559332baf23e30e91367e9ddca97d26ed9b895f05",
        ),
        OfficialFile(
            "cars_train.tgz",
            unpacks=("cars_train",),
            page=_PAGE,
            size=979_269_282,
            checksum="sha256:512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288",
        ),
        OfficialFile(
            "cars_test.tgz",
            unpacks=("cars_test",),
            page=_PAGE,
            size=977_350_468,
            checksum="sha256:bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243",
        ),
    )
    protocols = (
        *fine_grained.protocols(rows=16_185, classes=196, train=8_144),
        list_protocols.fire(
            196,
            dataclasses.replace(list_protocols.FIRE, unlabelled="cannot occur", labels="one-hot"),
        ),
    )

    def read(self, root: Path) -> Rows:
        """Read the annotations of both halves and the names of the models."""
        meta = root / "devkit" / "cars_meta.mat"
        names = tuple(cell_words(read_variable(meta, ("class_names",), text=True)))
        test = root / LABELS
        halves = {
            "cars_train": _annotations(root / "devkit" / "cars_train_annos.mat", len(names)),
            "cars_test": _annotations(
                test if test.is_file() else root / "devkit" / LABELS, len(names)
            ),
        }
        paths = tuple(f"{half}/{name}" for half, records in halves.items() for name, _ in records)
        train = np.arange(len(paths)) < len(halves["cars_train"])
        return Rows(
            keys=tuple(self.list_key(path) for path in paths),
            paths=paths,
            labels=one_hot([c for records in halves.values() for _, c in records], len(names)),
            class_names=names,
            subsets={"train": train, "test": ~train},
        )

    def list_key(self, path: str) -> str:
        """Return folder and stem, as both halves count from 1.

        >>> StanfordCars().list_key("data/cars_test/00017.jpg")
        'cars_test/00017'
        """
        file = PurePosixPath(path)
        return f"{file.parent.name}/{file.stem}"


def _annotations(file: Path, classes: int) -> list[tuple[str, int]]:
    """Return file name and class (from 0) of every photo of a half."""
    records = read_variable(file, ("annotations",)).ravel()
    fields = records.dtype.names or ()
    if "fname" not in fields or "class" not in fields:
        raise UserError(
            f"'{file}' states no class or no file name; the annotations with labels are needed "
            f"(of cars_test: {LABELS})."
        )
    rows = [
        (cell_words(r["fname"])[0], int(np.asarray(r["class"]).ravel()[0]) - 1) for r in records
    ]
    if any(not 0 <= c < classes for _, c in rows):
        raise UserError(f"'{file}' has a class that cars_meta.mat does not name.")
    return rows
