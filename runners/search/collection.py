"""Codes with ids: files of them, the index beside a file, and the nearest rows.

``codes.h5`` of ``main.py encode``: ``packed`` uint8 [N,⌈K/8⌉], ``ids`` (paths below the folder, or
the texts); attributes ``bits``, ``bit_order`` (``little``), ``modality``, ``folder`` (of pictures,
else empty) and ``run``. The same names are arrays in an npz. ``main.py metrics`` and ``export``
read both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.code_files.faiss_index import build_index, load_index, save_index, search
from common.codes import pack_codes, unpack_codes
from dataset.base import ImageSource
from dataset.images import SUFFIXES, FileImages
from utils.errors import UserError
from utils.files import atomic_path

if TYPE_CHECKING:
    import faiss


@dataclasses.dataclass(frozen=True)
class Collection:
    """N coded rows.

    Attributes:
        packed: uint8 [N,⌈K/8⌉], LSB first.
        bits: K.
        ids: N words: paths, or the texts themselves.
        modality: ``image`` or ``text``.
        folder: where relative paths start; empty for texts.
        run: name of the run that coded them.
        file: where they are kept, if they are.
    """

    packed: np.ndarray
    bits: int
    ids: list[str]
    modality: str
    folder: str = ""
    run: str = ""
    file: Path | None = None

    def __len__(self) -> int:
        return len(self.packed)

    def pictures(self) -> ImageSource | None:
        """Return the pictures by row, or None for texts."""
        return FileImages(self.ids, self.folder) if self.modality == "image" else None


@dataclasses.dataclass(frozen=True)
class Hits:
    """The nearest rows, nearest first, and the seconds that the search took."""

    rows: list[int]
    distances: list[int]
    seconds: float


def picture_files(folder: str | Path) -> list[str]:
    """Return the paths of all pictures below a folder, relative to it, in order.

    Raises:
        UserError: no folder, or no picture in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"--images: '{folder}' is no folder; give one with pictures in it.")
    found = [
        path.relative_to(root).as_posix()
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
    if not found:
        raise UserError(f"--images: no picture in '{folder}' ({', '.join(SUFFIXES)}).")
    return found


def text_lines(file: str | Path) -> list[str]:
    """Return the texts of a file, one a line; empty lines are left out.

    Raises:
        UserError: it cannot be read, or holds none.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--texts: '{file}' cannot be read as UTF-8 text ({error}).") from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise UserError(f"--texts: '{file}' holds no text; one a line is needed.")
    return texts


def write_collection(collection: Collection, path: Path) -> None:
    """Write a collection as HDF5, or as npz where the name ends so, atomically.

    Raises:
        UserError: another ending, or it cannot be written there.
    """
    about = {
        "bits": collection.bits, "modality": collection.modality, "folder": collection.folder,
        "run": collection.run,
    }  # fmt: skip
    if path.suffix.lower() == ".npz":
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            words = {name: np.array(value) for name, value in about.items()}
            ids = np.array(collection.ids, dtype=np.str_)
            np.savez(stream, packed=collection.packed, ids=ids, **words)  # type: ignore[arg-type]
        return
    if path.suffix.lower() not in (".h5", ".hdf5"):
        raise UserError(f"--out: '{path}' ends in neither .h5 nor .npz.")
    import h5py

    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({**about, "bit_order": "little"})
        file["packed"] = collection.packed
        file.create_dataset("ids", data=collection.ids, dtype=h5py.string_dtype())


def read_collection(path: Path) -> Collection:
    """Return what :func:`write_collection` wrote.

    Raises:
        UserError: no such file, or of other content.
    """
    import h5py

    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                packed, bits = arrays["packed"], int(arrays["bits"])
                ids = [str(one) for one in arrays["ids"]]
                told = {name: str(arrays[name]) for name in ("modality", "folder", "run")}
        else:
            with h5py.File(path, "r") as file:
                packed, bits = file["packed"][:], int(file.attrs["bits"])
                ids = list(file["ids"].asstr()[:])
                told = {name: str(file.attrs[name]) for name in ("modality", "folder", "run")}
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"--codes: '{path}' is missing or is no file of `main.py encode` ({error})."
        ) from error
    unpack_codes(packed[:1], bits)  # refuses another width
    if len(ids) != len(packed):
        raise UserError(f"--codes: '{path}' has {len(packed)} codes and {len(ids)} ids.")
    return Collection(packed, bits, ids, **told, file=path)


def nearest(collection: Collection, code: np.ndarray, top: int) -> Hits:
    """Return the ``top`` rows nearest to a code of ±1 [K]; the index is kept beside the codes.

    Raises:
        UserError: codes of another length, or ``top`` below 1.
    """
    if len(code) != collection.bits:
        raise UserError(
            f"The query has {len(code)} bits, the codes have {collection.bits}; encode both by the "
            "same run."
        )
    index = _index(collection)
    start = time.perf_counter()
    distances, rows = search(index, pack_codes(code[None]), top, bits=collection.bits)
    seconds = time.perf_counter() - start
    return Hits(rows[0].tolist(), distances[0].tolist(), seconds)


def _index(collection: Collection) -> faiss.IndexBinary:
    """Return the index of a collection, from the file beside it where that is not older."""
    if collection.file is None:
        return build_index(collection.packed, "flat", collection.bits)
    place = collection.file.with_name(f"{collection.file.name}.faiss")
    try:
        fresh = place.stat().st_mtime_ns >= collection.file.stat().st_mtime_ns
    except OSError:
        fresh = False
    if fresh:
        try:
            index = load_index(place)
            if index.ntotal == len(collection) and index.d == collection.packed.shape[1] * 8:
                return index
        except UserError:
            pass  # damaged: it is made again
    index = build_index(collection.packed, "flat", collection.bits)
    with contextlib.suppress(
        UserError
    ):  # a folder that nobody may write to is searched all the same
        save_index(index, place)
    return index
