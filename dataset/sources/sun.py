"""SUN Attributes: Patterson et al., IJCV 2014; 14,340 photos of 717 scenes, 102 attributes.

Rows: in the order of ``images.mat``, which is also xlsa17's. The class of
``a/apse/indoor/sun_x.jpg`` is ``apse_indoor``; classes in the order of occurrence. Attributes
of a photo (extra ``image_attributes``): the share of three annotators who saw one; of a class: the
mean over its photos.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from dataset.preparation.prepared_dataset import prepared
from dataset.preparation.rows import Attributes, Rows
from dataset.preparation.source import OfficialFile, RowKind, Source
from dataset.sources import xlsa17
from dataset.sources import zero_shot_protocols as zero_shot
from dataset.tables import cell_words, one_hot
from utils.errors import UserError
from utils.mat_file import read_variable

FOLDER, IMAGES = "SUNAttributeDB", "images"
XLSA17 = "SUN"
SEEN = 500  # classes, the first ones
_HOST = "https://cs.brown.edu/~gmpatter"
_PAGE = f"{_HOST}/sunattributes.html"
_TABLES = ("images.mat", "attributes.mat", "attributeLabels_continuous.mat")


@prepared
class Sun(Source):
    """SUN Attributes: 717 scenes, 102 attributes; by `main.py prepare sun`."""

    name = "sun"
    title = "SUN Attributes"
    licence = "research; photos belong to their owners"
    files = (
        OfficialFile(
            "SUNAttributeDB.tar.gz",
            unpacks=tuple(f"{FOLDER}/{table}" for table in _TABLES),
            url=f"{_HOST}/Attributes/SUNAttributeDB.tar.gz",
            page=_PAGE,
        ),
        OfficialFile(
            "SUNAttributeDB_Images.tar.gz",
            unpacks=(IMAGES,),
            url=f"{_HOST}/Attributes/SUNAttributeDB_Images.tar.gz",
            page=_PAGE,
            unpacked_size=6_000_000_000,
        ),
        xlsa17.archive(XLSA17),
    )
    row_kind = RowKind(attributes=102, image_attributes=True)
    protocols = zero_shot.protocols(
        rows=14_340, classes=717, seen=SEEN, train=10, query=10,
        trainval=10_320, test_seen=2_580, test_unseen=1_440, unseen=72,
    )  # fmt: skip

    def read(self, root: Path) -> Rows:
        """Read the list of images and their attributes."""
        paths = _listed(root, "images.mat", "images")
        row_classes = [class_name(path) for path in paths]
        names = tuple(dict.fromkeys(row_classes))
        column = {name: column for column, name in enumerate(names)}
        labels = one_hot([column[name] for name in row_classes], len(names))
        subsets = xlsa17.subsets(root, XLSA17, labels)
        values = _values(root, len(paths))
        return Rows(
            keys=tuple(self.list_key(path) for path in paths),
            paths=tuple(f"{IMAGES}/{path}" for path in paths),
            labels=labels,
            class_names=names,
            attributes=_class_attributes(root, names, labels, values),
            class_sets={
                zero_shot.STANDARD: names[:SEEN], **xlsa17.class_sets(subsets, labels, names)
            },
            subsets=subsets,
            extras={"image_attributes": values},
        )  # fmt: skip

    def attributes(self, root: Path) -> tuple[Attributes, ...]:
        """Return the means over photos and xlsa17's matrix."""
        rows = self.read(root)
        assert rows.attributes is not None
        return xlsa17.statements(root, XLSA17, rows.attributes, 1)

    def list_key(self, path: str) -> str:
        """Return the path from the folder of the first letter on, without its suffix.

        >>> Sun().list_key("SUN/images/a/apse/indoor/sun_x.jpg")
        'a/apse/indoor/sun_x'
        """
        parts = PurePosixPath(path).with_suffix("").parts
        start = max((i for i, part in enumerate(parts[:-2]) if len(part) == 1), default=0)
        return "/".join(parts[start:])


def class_name(path: str) -> str:
    """Return the scene in the path of an image.

    >>> class_name("a/apse/indoor/sun_x.jpg")
    'apse_indoor'
    """
    return "_".join(PurePosixPath(path).parts[1:-1])


def _listed(root: Path, file: str, variable: str) -> list[str]:
    cells = read_variable(root / FOLDER / file, (variable,), text=True)
    return cell_words(cells)


def _values(root: Path, rows: int) -> np.ndarray:
    """Return the attributes of every image, float32 [N,A]."""
    file = root / FOLDER / "attributeLabels_continuous.mat"
    values = read_variable(file, ("labels_cv",)).astype(np.float32)
    if values.ndim != 2 or len(values) != rows:
        raise UserError(
            f"'{file}' is of shape {values.shape}, but images.mat lists {rows} pictures; they must "
            "agree."
        )
    return values


def _class_attributes(
    root: Path, names: tuple[str, ...], labels: np.ndarray, values: np.ndarray
) -> Attributes:
    words = tuple(_listed(root, "attributes.mat", "attributes"))
    if len(words) != values.shape[1]:
        raise UserError(
            f"'{root / FOLDER}': attributes.mat names {len(words)} attributes, "
            f"attributeLabels_continuous.mat has {values.shape[1]} columns; they must agree."
        )
    sums = np.zeros((len(names), len(words)))
    np.add.at(sums, labels.argmax(1), values)
    return Attributes(
        names, words, (sums / labels.sum(0, dtype=np.int64)[:, None]).astype(np.float32)
    )
