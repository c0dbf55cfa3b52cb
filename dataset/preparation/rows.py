"""The rows of a dataset as its official files state them, and the attributes of its classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Attributes:
    """Class attributes as one official file states them; C classes, A attributes.

    Attributes:
        class_names: C names, in the order of the rows of ``values``.
        names: A names.
        values: float32 [C,A].
    """

    class_names: tuple[str, ...]
    names: tuple[str, ...]
    values: np.ndarray

    def for_classes(self, class_names: Sequence[str]) -> np.ndarray:
        """Return the rows of ``class_names``; float32 [len,A].

        Raises:
            UserError: a class has no row, or two.
        """
        row_of = {name: row for row, name in enumerate(self.class_names)}
        if len(row_of) < len(self.class_names) or len(self.values) != len(self.class_names):
            raise UserError(
                f"The attributes have {len(self.values)} rows for {len(self.class_names)} class "
                f"names, {len(row_of)} of them different; one row per class is needed."
            )
        unknown = [name for name in class_names if name not in row_of]
        if unknown:
            raise UserError(
                f"The attributes have no row for class '{unknown[0]}' ({len(unknown)} such)."
            )
        rows = [row_of[name] for name in class_names]
        return np.ascontiguousarray(self.values[rows], dtype=np.float32)


@dataclasses.dataclass(frozen=True)
class Rows:
    """All rows of a dataset, as its official files state them; N rows, C classes.

    Seeded draws depend on their order: it must follow from the files' content, never from the order
    in which a folder lists its files.

    Attributes:
        keys: N different words by which list files name the rows (see ``Source.list_key``).
        paths: N paths of pictures below the root, with forward slashes.
        labels: uint8 [N,C], 0/1; a row may carry none.
        class_names: C different names.
        texts: for each row its captions or tags, perhaps none; None for image-only data.
        attributes: of the classes; matched to ``class_names`` by name when the index is written.
        class_sets: name → class names, e.g. the seen classes of a zero-shot split.
        subsets: name → bool [N], e.g. the official training rows, or the rows with enough tags.
        extras: name → array with N rows, handed on in ``HashDataset.extras``.
        variants: name → other texts of the rows, which a protocol may use instead (see
            ``Protocol.texts``).
    """

    keys: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...] | None = None
    attributes: Attributes | None = None
    class_sets: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    subsets: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    extras: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    variants: Mapping[str, tuple[tuple[str, ...], ...]] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)
