"""What a dataset is: rows of (picture, texts, labels), class names, perhaps attributes, a split."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Protocol, runtime_checkable

import numpy as np

from dataset.row_features import RowFeatures
from dataset.splits import SplitManifest
from utils.files import array_digest, digest


@runtime_checkable
class ImageSource(Protocol):
    """Pictures by row number."""

    @property
    def fingerprint(self) -> str:
        """Hash of what the pictures are (names and content, or the generator's settings)."""
        ...

    def __len__(self) -> int: ...

    def decode(self, row: int) -> np.ndarray:
        """Return the picture of ``row``, RGB uint8 [H,W,3].

        Raises:
            BadImageError: the file is missing or cannot be read; names it.
        """
        ...

    def name(self, row: int) -> str:
        """Return what to call the picture of ``row`` in a message: its path."""
        ...


WITHOUT_QUERIES = ("train", "database")
"""Parts of a split whose rows may come with inputs that were made from them, unlike a query."""


class BadImageError(Exception):
    """A picture that is missing or broken; the message names the file and what is wrong with it."""


class ArrayImages:
    """Pictures held in one uint8 array [N,H,W,3] (in memory or memory-mapped)."""

    def __init__(self, array: np.ndarray, fingerprint: str) -> None:
        """Wrap ``array`` without copying it."""
        self.array = array
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.array)

    def decode(self, row: int) -> np.ndarray:
        """Return the picture of ``row``, uint8 [H,W,3]."""
        return self.array[row]

    def name(self, row: int) -> str:
        """Return ``picture <row>``."""
        return f"picture {row}"


@dataclasses.dataclass(frozen=True)
class AuxiliaryInputs:
    """Images, texts or both beside those of the rows: captions made from images, and the like.

    Attributes:
        rows: int64 [n], the dataset rows that have one, ascending.
        source: what they are and where they come from, for ``metrics.json``.
        texts: n texts, or None.
        images: n images, or None.
        parts: parts of a split whose rows come with them. A query should not come with the caption
            of its own image.
        ahead: whether the images are encoded once, by the encoder as it is before training.
        features: float32 [n,D], precomputed features of the images, or None.
        encoder: hash of the encoder that computed ``features``; empty: any that gives D numbers.
    """

    rows: np.ndarray
    source: str
    texts: list[str] | None = None
    images: ImageSource | None = None
    parts: tuple[str, ...] = ("train", "val", "query", "database")
    ahead: bool = False
    features: np.ndarray | None = None
    encoder: str = ""


@dataclasses.dataclass(frozen=True)
class GeneratedRows:
    """Generated rows at the end of a dataset, in no part of its split.

    Attributes:
        name: key of ``source`` in ``metrics.json``.
        rows: int64 [n].
        source: what they are and where they come from, for ``metrics.json``.
    """

    name: str
    rows: np.ndarray
    source: str


def picture_stem(path: str) -> str:
    """Return the name of a picture without folders and suffix, by which files find its row.

    >>> picture_stem("photos/im7.jpg")
    'im7'
    """
    return PurePosixPath(path if "/" in path else path.replace("\\", "/")).stem


@dataclasses.dataclass
class HashDataset:
    """A dataset as every runner sees it; N rows, C classes, A attributes.

    Attributes:
        name: the config's name (``flickr8k``), used in run folders and tables.
        images: the N pictures.
        labels: float32 [N,C], 0/1.
        class_names: C names.
        multi_label: whether a row may carry more than one label.
        split: which rows are train, val, query and database.
        texts: for each row its captions (at least one), or None for image-only data.
        attributes: float32 [C,A] per class, or None.
        attribute_names: A names.
        seen_classes: classes that training rows carry; empty means all.
        extras: further arrays with N rows, handed on in ``Batch.extras``.
        auxiliary: auxiliary images and texts of rows by name, which a batch carries for models that
            read them; ``second``: a caption made from the row's image; ``virtual``: an image
            generated from the text of a query row, with its caption; ``pseudo``: a generated image
            of the class of a training row.
        generated: rows for training beyond those of the split, for models that ask for them.
        picture_key: path of a picture in another's file → the word by which its row is found.
        features: of the rows, computed before, in place of pictures and texts; None: there are
            pictures and texts.
    """

    name: str
    images: ImageSource
    labels: np.ndarray
    class_names: tuple[str, ...]
    multi_label: bool
    split: SplitManifest
    texts: list[tuple[str, ...]] | None = None
    attributes: np.ndarray | None = None
    attribute_names: tuple[str, ...] = ()
    seen_classes: tuple[int, ...] = ()
    extras: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    auxiliary: dict[str, AuxiliaryInputs] = dataclasses.field(default_factory=dict)
    generated: GeneratedRows | None = None
    picture_key: Callable[[str], str] = picture_stem
    features: RowFeatures | None = None

    @property
    def others(self) -> dict[str, AuxiliaryInputs]:
        """The former name of ``auxiliary``, for plugins; goes with the next release."""
        return self.auxiliary

    @property
    def modalities(self) -> tuple[str, ...]:
        """``("image", "text")`` or ``("image",)``; of features also ``("text",)``."""
        if self.features is not None:
            return self.features.modalities
        return ("image", "text") if self.texts is not None else ("image",)

    @functools.cached_property
    def content(self) -> str:
        """Hash of all but the pictures: labels, texts, names, split, attributes, extras."""
        arrays = {"labels": self.labels, "attributes": self.attributes, **self.extras}
        return digest(
            *(f"{name} {array_digest(a)}" for name, a in arrays.items() if a is not None),
            repr((self.class_names, self.attribute_names, self.seen_classes, self.multi_label)),
            self.split.hash, *(digest(*row) for row in self.texts or ()),
        )  # fmt: skip

    @property
    def several_captions(self) -> bool:
        """Whether a row has more than one caption."""
        if self.features is not None:
            return self.features.caption_offsets is not None
        return any(len(row) > 1 for row in self.texts or ())

    def __len__(self) -> int:
        return len(self.labels)
