"""Codes with ids: their files, and nearest neighbors.

``codes.h5`` of ``main.py encode``: ``packed`` uint8 [N,⌈K/8⌉], ``ids`` (paths below the folder, or
the texts); attributes ``bits``, ``bit_order`` (``little``), ``modality``, ``folder`` (of images,
else empty), ``run`` and ``model`` (hash of the weights that made them, of encoder and run). An npz
file has arrays of the same names. ``main.py metrics`` and ``export`` read both.
"""

from __future__ import annotations

import dataclasses
import time
import zipfile
from pathlib import Path

import numpy as np

from common.code_files.faiss_index import build_index, search
from common.codes import pack_codes, unpack_codes
from dataset.base import ImageSource
from dataset.images import SUFFIXES, FileImages
from dataset.picture_walk import pictures_below, tell_left_out
from utils.errors import UserError
from utils.files import atomic_path, check_plain_file
from utils.hdf5_file import open_hdf5
from utils.numpy_file import open_npz

ATTRIBUTES = ("modality", "folder", "run", "model")  # of a file, beside its bits


@dataclasses.dataclass(frozen=True)
class Collection:
    """Codes of N rows.

    Attributes:
        packed: uint8 [N,⌈K/8⌉], LSB first.
        bits: K.
        ids: N strings: paths, or the texts.
        modality: ``image`` or ``text``.
        folder: base of relative paths; empty for texts.
        run: name of the run whose model encoded them.
        model: hash of the weights of that model; "" where it is not known.
        file: that holds them, or None.
        images: by row, or None for texts.
    """

    packed: np.ndarray
    bits: int
    ids: list[str]
    modality: str
    folder: str = ""
    run: str = ""
    model: str = ""
    file: Path | None = None
    images: ImageSource | None = None

    def __len__(self) -> int:
        return len(self.packed)


@dataclasses.dataclass(frozen=True)
class Hits:
    """The nearest rows, nearest first, and the duration of the search."""

    rows: list[int]
    distances: list[int]
    seconds: float


def image_files(folder: str | Path) -> list[str]:
    """Return the sorted paths of all images below a folder, relative to it.

    Links are followed as :mod:`dataset.picture_walk` says.

    Raises:
        UserError: no folder, or no image in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"--images: '{folder}' is no folder; give one with pictures in it.")
    files, others = pictures_below(root)
    tell_left_out(f"--images: '{folder}'", others)
    if not files:
        raise UserError(f"--images: no picture in '{folder}' ({', '.join(SUFFIXES)}).")
    return files


def text_lines(file: str | Path) -> list[str]:
    """Return the texts of a file, one per line; empty lines are skipped.

    Raises:
        UserError: it cannot be read, or has no text.
    """
    check_plain_file(Path(file))
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--texts: '{file}' cannot be read as UTF-8 text ({error}).") from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise UserError(f"--texts: '{file}' holds no text; one a line is needed.")
    return texts


def write_collection(collection: Collection, path: Path) -> None:
    """Write a collection atomically, as HDF5 or npz by the suffix of the name.

    Raises:
        UserError: it cannot be written.
    """
    attributes = {name: getattr(collection, name) for name in ("bits", *ATTRIBUTES)}
    if path.suffix.lower() == ".npz":
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            ids = np.array(collection.ids, dtype=np.str_)
            np.savez(stream, packed=collection.packed, ids=ids, **attributes)
        return
    import h5py

    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({**attributes, "bit_order": "little"})
        file["packed"] = collection.packed
        file.create_dataset("ids", data=collection.ids, dtype=h5py.string_dtype())


def read_collection(path: Path) -> Collection:
    """Return what :func:`write_collection` wrote.

    Raises:
        UserError: no such file, or with other content.
    """
    try:
        if path.suffix.lower() == ".npz":
            with open_npz(path) as arrays:
                packed, bits = arrays["packed"], int(arrays["bits"])
                ids = [str(value) for value in arrays["ids"]]
                attributes = {name: str(arrays[name]) for name in ATTRIBUTES if name in arrays}
        else:
            with open_hdf5(path) as file:
                packed, bits = file["packed"][:], int(file.attrs["bits"])
                ids = list(file["ids"].asstr()[:])
                attributes = {
                    name: str(file.attrs[name]) for name in ATTRIBUTES if name in file.attrs
                }
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"--codes: '{path}' is missing or is no file of `main.py encode` ({error})."
        ) from error
    unpack_codes(packed[:1], bits)  # refuses another width
    if len(ids) != len(packed):
        raise UserError(f"--codes: '{path}' has {len(packed)} codes and {len(ids)} ids.")
    images = None
    if attributes["modality"] == "image":
        images = FileImages(ids, attributes["folder"], colour="as_seen")
    return Collection(packed, bits, ids, **attributes, file=path, images=images)


def nearest(collection: Collection, code: np.ndarray, top: int) -> Hits:
    """Return the ``top`` rows nearest to a code of ±1 [K].

    Raises:
        UserError: codes of another length, or ``top`` below 1.
    """
    if len(code) != collection.bits:
        raise UserError(
            f"The query has {len(code)} bits, the codes have {collection.bits}; encode both by the "
            "same run."
        )
    index = build_index(collection.packed, "flat", collection.bits)
    start = time.perf_counter()
    distances, rows = search(index, pack_codes(code[None]), top, bits=collection.bits)
    seconds = time.perf_counter() - start
    return Hits(rows[0].tolist(), distances[0].tolist(), seconds)
