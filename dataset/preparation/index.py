"""The index of a prepared dataset: one HDF5 file; image files are neither moved nor copied.

======================= ==================== =====================================================
in the file             type                 content
======================= ==================== =====================================================
``keys``, ``paths``     text [N]             see :class:`~dataset.preparation.rows.Rows`
``labels``              uint8 [N,C]          0/1
``class_names``         text [C]
``texts``               text [M]             captions of all rows, one row after the other
``text_offsets``        int64 [N+1]          row r has the texts from offset r up to offset r+1
``attributes``          float32 [C,A]        rows in the order of ``class_names``
``attribute_names``     text [A]
``image_bytes``         int64 [N]            size of each image file; -1: it was missing
``image_sha256``        uint8 [N,16]         first half of the SHA-256 of its content
``class_sets/…``        text                 see ``Rows``; likewise ``subsets/…``, ``extras/…``
``variants/…``          text [M]             other texts of all rows, as ``texts``; their offsets in
                                             ``variant_offsets/…``
======================= ==================== =====================================================

Attributes of the file: ``format``, ``dataset``, ``layout`` (``official`` or ``mat``), ``content``
(hash of all of the above).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset.preparation.rows import Attributes, Rows
from utils.errors import UserError
from utils.files import atomic_path
from utils.hdf5_file import open_hdf5

FORMAT = 1
OFFICIAL, MAT = "official", "mat"
"""Layouts that rows are read from: the publisher's files, or the ``.mat`` files of DCMHT."""

DIGEST_BYTES = 16


@dataclasses.dataclass(frozen=True)
class Index:
    """The result of ``prepare``: the rows and digests of their images.

    Attributes:
        dataset: the source's name.
        layout: the files that the rows were read from: ``official`` or ``mat``.
        rows: see there; the attributes are in the order of the class names.
        image_bytes: int64 [N]; -1 for a missing image.
        image_digests: uint8 [N,16].
    """

    dataset: str
    layout: str
    rows: Rows
    image_bytes: np.ndarray
    image_digests: np.ndarray

    @functools.cached_property
    def content(self) -> str:
        """First 16 hex digits of the SHA-256 of everything in the index."""
        total = hashlib.sha256(f"{FORMAT};{self.dataset};{self.layout};".encode())
        for name, value in self._arrays():
            data = "\0".join(value).encode() if isinstance(value, tuple) else value.tobytes()
            shape = (len(value),) if isinstance(value, tuple) else (value.shape, value.dtype.str)
            total.update(f"{name}:{shape}:{len(data)};".encode())
            total.update(data)
        return total.hexdigest()[:16]

    def subset(self, name: str) -> np.ndarray:
        """Return which rows the subset ``name`` marks, bool [N].

        Raises:
            UserError: the index has no such subset.
        """
        if name not in self.rows.subsets:
            known = ", ".join(self.rows.subsets) or "none"
            raise UserError(
                f"The index of {self.dataset} has no rows marked '{name}' (there: {known}); the "
                "file that marks them was not there when it was prepared. Prepare it again."
            )
        return self.rows.subsets[name]

    def texts(self, variant: str = "") -> tuple[tuple[str, ...], ...] | None:
        """Return the texts of all rows, or those that the variant of this name has.

        Raises:
            UserError: the index has no such texts.
        """
        if not variant or self.layout == MAT:
            return self.rows.texts
        if variant not in self.rows.variants:
            raise UserError(
                f"The index of {self.dataset} has no texts called '{variant}' (there: "
                f"{', '.join(self.rows.variants) or 'none'}); it was made before they were: "
                "prepare the dataset again."
            )
        return self.rows.variants[variant]

    def save(self, path: Path) -> None:
        """Write the index atomically; equal indices become equal files."""
        import h5py

        with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
            text = h5py.string_dtype()
            for name, value in self._arrays():
                if isinstance(value, tuple):
                    file.create_dataset(name, (len(value),), text, np.array(value, dtype=object))
                else:
                    packed = {"compression": "gzip", "shuffle": True} if value.size > 64 else {}
                    file.create_dataset(name, data=value, **packed)
            file.attrs["format"] = FORMAT
            file.attrs["dataset"] = self.dataset
            file.attrs["layout"] = self.layout
            file.attrs["content"] = self.content

    def _arrays(self) -> Iterator[tuple[str, Any]]:
        """Yield name and content of everything; texts are tuples of strings, the rest arrays."""
        rows = self.rows
        yield "keys", rows.keys
        yield "paths", rows.paths
        yield "labels", rows.labels
        yield "class_names", rows.class_names
        if rows.texts is not None:
            yield from zip(("texts", "text_offsets"), _flat(rows.texts), strict=True)
        if rows.attributes is not None:
            yield "attributes", rows.attributes.values
            yield "attribute_names", rows.attributes.names
        yield "image_bytes", self.image_bytes
        yield "image_sha256", self.image_digests
        for group in ("class_sets", "subsets", "extras"):
            values = getattr(rows, group)
            yield from ((f"{group}/{name}", values[name]) for name in sorted(values))
        for name in sorted(rows.variants):
            names = f"variants/{name}", f"variant_offsets/{name}"
            yield from zip(names, _flat(rows.variants[name]), strict=True)


def _flat(texts: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return all texts of N rows one after the other, and offsets int64 [N+1]."""
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return tuple(text for row in texts for text in row), offsets


def index_file(root: Path, dataset: str) -> Path:
    """Return the path of the index of ``dataset``."""
    return root / f"{dataset}.index.h5"


def load_index(root: Path, dataset: str) -> Index:
    """Read the index of ``dataset`` below ``root``.

    Raises:
        UserError: there is none yet, it is of another dataset or format, or it is damaged.
    """
    index, recorded = read_index(root, dataset)
    if index.content != recorded:
        raise UserError(
            f"'{index_file(root, dataset)}' says content {recorded}, but holds {index.content}; it "
            "was changed or damaged: remove it and prepare the dataset again."
        )
    return index


def read_index(root: Path, dataset: str) -> tuple[Index, str]:
    """Read an index unchecked; also return the content hash recorded in it.

    Raises:
        UserError: there is none yet, it is of another dataset or format, or it cannot be read.
    """
    path = index_file(root, dataset)
    if not path.is_file():
        raise UserError(
            f"'{path}' does not exist; make it with: python main.py prepare {dataset} --root {root}"
        )
    try:
        with open_hdf5(path) as file:
            attrs = {key: file.attrs.get(key) for key in ("format", "dataset", "layout", "content")}
            if attrs["format"] != FORMAT or attrs["dataset"] != dataset:
                raise UserError(
                    f"'{path}' is an index of {attrs['dataset']} in format {attrs['format']}, not "
                    f"of {dataset} in format {FORMAT}; remove it and prepare the dataset again."
                )
            return _read(file, dataset, str(attrs["layout"])), str(attrs["content"])
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"'{path}' cannot be read ({error}); remove it and prepare the dataset again."
        ) from error


def _read(file: Any, dataset: str, layout: str) -> Index:
    class_names = _strings(file["class_names"])
    attributes = texts = None
    if "attributes" in file:
        attributes = Attributes(
            class_names, _strings(file["attribute_names"]), file["attributes"][()]
        )
    if "texts" in file:
        texts = _by_row(file["texts"], file["text_offsets"])
    groups = {name: file.get(name, {}) for name in ("class_sets", "subsets", "extras")}
    rows = Rows(
        keys=_strings(file["keys"]),
        paths=_strings(file["paths"]),
        labels=file["labels"][()],
        class_names=class_names,
        texts=texts,
        attributes=attributes,
        class_sets={name: _strings(value) for name, value in groups["class_sets"].items()},
        subsets={name: value[()] for name, value in groups["subsets"].items()},
        extras={name: value[()] for name, value in groups["extras"].items()},
        variants={
            name: _by_row(value, file[f"variant_offsets/{name}"])
            for name, value in file.get("variants", {}).items()
        },
    )
    return Index(dataset, layout, rows, file["image_bytes"][()], file["image_sha256"][()])


def _by_row(stored: Any, offsets: Any) -> tuple[tuple[str, ...], ...]:
    """Return the texts of every row."""
    flat, bounds = _strings(stored), offsets[()].tolist()
    return tuple(flat[a:b] for a, b in zip(bounds[:-1], bounds[1:], strict=True))


def _strings(stored: Any) -> tuple[str, ...]:
    return tuple(stored.asstr()[()].tolist()) if stored.size else ()


def check_rows(rows: Rows, dataset: str) -> Rows:
    """Return ``rows`` as an index holds them: checked, attributes in the order of the classes.

    Raises:
        UserError: lengths that differ, a key or class twice, labels other than 0/1, a subset or a
            class set that does not fit, attributes that lack a class.
    """
    n, classes = len(rows.paths), len(rows.class_names)
    if n == 0:
        raise UserError(f"The files of {dataset} hold no row.")
    counts = {"keys": len(rows.keys), "labels": len(rows.labels)}
    if rows.texts is not None:
        counts["texts"] = len(rows.texts)
    for group in ("subsets", "extras", "variants"):
        counts.update({f"{group}.{k}": len(v) for k, v in getattr(rows, group).items()})
    wrong = {name: count for name, count in counts.items() if count != n}
    if wrong:
        name, count = next(iter(wrong.items()))
        raise UserError(f"The files of {dataset} give {n} pictures, but {count} {name}.")
    for name, words in {"key": rows.keys, "class": rows.class_names}.items():
        if len(set(words)) < len(words):
            repeated, _ = Counter(words).most_common(1)[0]
            raise UserError(f"The files of {dataset} name the {name} '{repeated}' twice.")
    if rows.labels.shape != (n, classes) or not np.isin(rows.labels, (0, 1)).all():
        raise UserError(
            f"The labels of {dataset} are {rows.labels.dtype} of shape {rows.labels.shape}; 0 and "
            f"1 in {n} rows and {classes} columns are needed."
        )
    known = set(rows.class_names)
    for set_name, names in rows.class_sets.items():
        if not set(names) <= known:
            unknown = sorted(set(names) - known)[0]
            raise UserError(f"The class set '{set_name}' of {dataset} names '{unknown}': no class.")
    attributes = rows.attributes
    if attributes is not None:
        values = attributes.for_classes(rows.class_names)
        attributes = Attributes(rows.class_names, attributes.names, values)
    return dataclasses.replace(
        rows,
        labels=np.ascontiguousarray(rows.labels, dtype=np.uint8),
        attributes=attributes,
        subsets={name: np.asarray(flags, dtype=bool) for name, flags in rows.subsets.items()},
        extras={name: np.asarray(values) for name, values in rows.extras.items()},
    )
