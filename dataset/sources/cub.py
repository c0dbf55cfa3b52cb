"""Caltech-UCSD Birds 200-2011: Wah et al., 2011; 11,788 photos of 200 birds, 312 attributes.

Rows: by number, as in ``images.txt``, the order of xlsa17. Class attributes: the percentage of a
class's photos that have one, divided by 100. Attributes of a photo (extra ``image_attributes``):
whether its annotator saw one, weighted by the stated certainty; PIXEL uses them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataset.preparation.prepared_dataset import prepared
from dataset.preparation.rows import Attributes, Rows
from dataset.preparation.source import OfficialFile, RowKind, Source
from dataset.sources import xlsa17
from dataset.sources import zero_shot_protocols as zero_shot
from dataset.tables import one_hot, read_matrix, read_pairs
from utils.errors import UserError

FOLDER = "CUB_200_2011"
XLSA17 = "CUB"
SEEN = 150  # classes, the first ones by number
CERTAINTY = np.array([0, 0, 0.5, 0.75, 1], np.float32)
"""Weight by stated certainty: 1 not visible, 2 guessing, 3 probably, 4 definitely."""

_CLASS_VALUES = f"{FOLDER}/attributes/class_attribute_labels_continuous.txt"
_IMAGE_VALUES = f"{FOLDER}/attributes/image_attribute_labels.txt"
_NAMES = ("attributes.txt", f"{FOLDER}/attributes.txt", f"{FOLDER}/attributes/attributes.txt")


@prepared
class Cub(Source):
    """CUB-200-2011: 200 birds, 312 attributes; by `main.py prepare cub`."""

    name = "cub"
    title = "Caltech-UCSD Birds 200-2011"
    licence = "non-commercial research and education; photos belong to their owners"
    files = (
        # size and checksum: as in tensorflow-datasets 4.9.10, url_checksums/caltech_birds2011.txt
        OfficialFile(
            "CUB_200_2011.tgz",
            unpacks=(f"{FOLDER}/images.txt", f"{FOLDER}/images", _IMAGE_VALUES, "|".join(_NAMES)),
            url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
            page="https://www.vision.caltech.edu/datasets/cub_200_2011/",
            size=1_150_585_339,
            checksum="sha256:0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
            unpacked_size=1_300_000_000,
        ),
        xlsa17.archive(XLSA17),
    )
    row_kind = RowKind(attributes=312, image_attributes=True)
    protocols = zero_shot.protocols(
        rows=11_788, classes=200, seen=SEEN, train=30, query=30,
        trainval=7_057, test_seen=1_764, test_unseen=2_967, unseen=50,
    )  # fmt: skip

    def read(self, root: Path) -> Rows:
        """Read the lists of images and classes, and both tables of attributes."""
        folder = root / FOLDER
        images = read_pairs(folder / "images.txt")
        classes = read_pairs(folder / "classes.txt")
        names = tuple(name for _, name in classes)
        column = {number: position for position, (number, _) in enumerate(classes)}
        class_of = dict(read_pairs(folder / "image_class_labels.txt"))
        try:
            labels = one_hot([column[class_of[image]] for image, _ in images], len(names))
        except KeyError as error:
            raise UserError(
                f"'{folder}': image_class_labels.txt or classes.txt lacks number {error}; unpack "
                "CUB_200_2011.tgz again."
            ) from error
        subsets = xlsa17.subsets(root, XLSA17, labels)
        matrix = _matrix(root)
        return Rows(
            keys=tuple(Path(path).stem for _, path in images),
            paths=tuple(f"{FOLDER}/images/{path}" for _, path in images),
            labels=labels,
            class_names=names,
            attributes=matrix,
            class_sets={
                zero_shot.STANDARD: names[:SEEN], **xlsa17.class_sets(subsets, labels, names)
            },
            subsets=subsets,
            extras={
                "image_attributes": read_image_attributes(
                    root / _IMAGE_VALUES, [image for image, _ in images], len(matrix.names)
                )
            },
        )  # fmt: skip

    def attributes(self, root: Path) -> tuple[Attributes, ...]:
        """Return the publisher's matrix and xlsa17's."""
        return xlsa17.statements(root, XLSA17, _matrix(root), 100)


def _matrix(root: Path) -> Attributes:
    classes = tuple(name for _, name in read_pairs(root / FOLDER / "classes.txt"))
    file = next((root / name for name in _NAMES if (root / name).is_file()), root / _NAMES[0])
    names = tuple(name for _, name in read_pairs(file))
    return Attributes(classes, names, read_matrix(root / _CLASS_VALUES, len(names)) / 100)


def read_image_attributes(file: Path, images: list[str], attributes: int) -> np.ndarray:
    """Read lines ``image attribute present certainty …``; some have further words.

    Args:
        file: ``image_attribute_labels.txt``.
        images: N numbers of images, in the order of the rows.
        attributes: A.

    Returns:
        float32 [N,A], 0..1.

    Raises:
        UserError: it cannot be read, or does not state every attribute of every image.
    """
    try:
        table = np.loadtxt(file, dtype=np.int64, usecols=(0, 1, 2, 3), ndmin=2)
        row_of = np.full(max(max(map(int, images)), table[:, 0].max(initial=0)) + 1, -1, np.int64)
    except (OSError, ValueError) as error:
        raise UserError(f"'{file}' is missing or broken ({error}).") from error
    row_of[[int(image) for image in images]] = np.arange(len(images))
    values = np.full((len(images), attributes), np.nan, np.float32)
    row, attribute = row_of[table[:, 0]], table[:, 1] - 1
    present, certainty = table[:, 2], table[:, 3]
    fits = (row >= 0) & (attribute >= 0) & (attribute < attributes)
    if not fits.all() or not (np.isin(present, (0, 1)) & np.isin(certainty, (1, 2, 3, 4))).all():
        raise UserError(
            f"'{file}' holds a picture, an attribute, a presence or a certainty that is none."
        )
    values[row, attribute] = present * CERTAINTY[certainty]
    if np.isnan(values).any():
        raise UserError(
            f"'{file}' lacks {int(np.isnan(values).sum()):,} of {values.size:,} attributes of "
            "pictures; it is cut short."
        )
    return values
