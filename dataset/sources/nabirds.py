"""NABirds: Van Horn et al., CVPR 2015; 48,562 photos of 555 kinds of North American birds.

Rows: in the order of ``images.txt``. Classes: the nodes of its tree of 1,011 that photos carry, in
the order of ``classes.txt``; a name that two of them share is followed by its number.
"""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np

from dataset.preparation.prepared_dataset import prepared
from dataset.preparation.rows import Rows
from dataset.preparation.source import OfficialFile, Source
from dataset.sources import fine_grained
from dataset.tables import one_hot, read_pairs
from utils.errors import UserError

FOLDER = "nabirds"
TABLES = ("images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt")


@prepared
class NaBirds(Source):
    """NABirds: 48,562 photos, 555 kinds of birds; by `main.py prepare nabirds`."""

    name = "nabirds"
    title = "NABirds"
    licence = "Cornell Lab's terms: non-commercial research; photos belong to their owners"
    files = (
        OfficialFile(
            "nabirds.tar.gz",
            unpacks=(*(f"{FOLDER}/{table}" for table in TABLES), f"{FOLDER}/images"),
            page="https://dl.allaboutbirds.org/nabirds (asks for consent to its terms)",
            unpacked_size=10_000_000_000,
        ),
    )
    protocols = fine_grained.protocols(rows=48_562, classes=555, train=23_929)

    def read(self, root: Path) -> Rows:
        """Read the four tables."""
        folder = root / FOLDER
        images, labels, classes, in_train = (read_pairs(folder / table) for table in TABLES)
        class_of, half_of = dict(labels), dict(in_train)
        used = set(class_of.values())
        used_classes = [(number, name) for number, name in classes if number in used]
        times = collections.Counter(name for _, name in used_classes)
        names = tuple(name if times[name] == 1 else f"{name} ({n})" for n, name in used_classes)
        column = {number: position for position, (number, _) in enumerate(used_classes)}
        try:
            numbers = [column[class_of[image]] for image, _ in images]
            train = np.array([half_of[image] == "1" for image, _ in images], bool)
        except KeyError as error:
            raise UserError(
                f"'{folder}': {', '.join(TABLES[1:])} lack {error}; unpack nabirds.tar.gz again."
            ) from error
        return Rows(
            keys=tuple(Path(path).stem for _, path in images),
            paths=tuple(f"{FOLDER}/images/{path}" for _, path in images),
            labels=one_hot(numbers, len(names)),
            class_names=names,
            subsets={"train": train, "test": ~train},
        )
