"""Arrays by name from ``.npz``, ``.h5``, ``.npy`` and ``.safetensors``, mapped where they can be.

A folder is all such files in it: a ``.npy`` is an array under its stem, the others bring theirs.
HDF5 that is compressed or in chunks is unpacked once into the cache, piece by piece; an ``.npz`` is
read into memory. Nothing is unpickled.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common.storage.cache import cached
from utils.errors import UserError
from utils.files import digest, size_and_time

Arrays = dict[str, np.ndarray]
PIECE = 1 << 25
"""Bytes that are looked at or copied at once."""
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
          "I8": "i1", "U8": "u1", "BOOL": "?"}  # fmt: skip


def array_files(root: Path) -> list[Path]:
    """Return the files that hold arrays: ``root`` itself, or those in it.

    Raises:
        UserError: it does not exist, is of another kind, or a folder without any.
    """
    kinds = ", ".join(READERS)
    if root.is_dir():
        files = sorted(path for path in root.iterdir() if path.suffix.lower() in READERS)
        if not files:
            raise UserError(f"'{root}' holds no file of features; one that ends in {kinds} does.")
        return files
    if not root.is_file():
        raise UserError(f"'{root}' does not exist; give a file ({kinds}) or a folder of them.")
    if root.suffix.lower() not in READERS:
        raise UserError(f"'{root}' is no file of features; their names end in {kinds}.")
    return [root]


def read_arrays(root: Path, names: Collection[str]) -> Arrays:
    """Return the arrays called ``names`` of a file or folder; others are left alone.

    Raises:
        UserError: no such file, one that cannot be read, or a name in two files.
    """
    found: Arrays = {}
    home: dict[str, Path] = {}
    for file in array_files(root):
        try:
            arrays = READERS[file.suffix.lower()](file, names)
        except (OSError, ValueError, EOFError, KeyError, struct.error, zipfile.BadZipFile) as error:
            raise UserError(
                f"'{file}' cannot be read ({str(error) or type(error).__name__}); plain arrays of "
                "numbers and text are needed, without pickled objects."
            ) from error
        for name, array in arrays.items():
            if name in home:
                raise UserError(
                    f"'{name}' is in '{home[name]}' and in '{file}'; keep one, or give the file."
                )
            home[name] = file
            native = array.dtype.newbyteorder("=")
            found[name] = array if array.dtype == native else array.astype(native)
    return found


def fingerprint(root: Path) -> str:
    """Return a hash of the files' names, sizes and times."""
    files = array_files(root)
    return digest(*(f"{file.resolve()} {size_and_time(file)}" for file in files))


def pieces(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of the first row, and rows of about :data:`PIECE` bytes together."""
    row_bytes = max(array[:1].nbytes, 1)
    step = max(PIECE // row_bytes, 1)
    for start in range(0, len(array), step):
        yield start, np.asarray(array[start : start + step])


def _read_npz(path: Path, names: Collection[str]) -> Arrays:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files if name in names}


def _read_npy(path: Path, names: Collection[str]) -> Arrays:
    if path.stem not in names:
        return {}
    return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False)}


def _read_hdf5(path: Path, names: Collection[str]) -> Arrays:
    import h5py

    with h5py.File(path, "r") as file:
        stored = {name: file[name] for name in file if name in names}
        return {
            name: _of_hdf5(path, name, values)
            for name, values in stored.items()
            if isinstance(values, h5py.Dataset)
        }


def _of_hdf5(path: Path, name: str, values: Any) -> np.ndarray:
    """Return a dataset of an open HDF5 file, mapped; text and small ones are read."""
    import h5py

    if h5py.check_string_dtype(values.dtype) is not None:
        return np.asarray(values.asstr()[()], dtype=np.str_)
    if values.nbytes <= PIECE:
        return np.asarray(values[()])
    if values.id.get_offset() is not None:
        return np.memmap(path, values.dtype, "r", values.id.get_offset(), values.shape)
    key = digest("unpacked", f"{path.resolve()} {size_and_time(path)} {name}")

    def unpack(target: Path) -> None:
        kind = values.dtype.newbyteorder("=")
        copy = np.lib.format.open_memmap(target, "w+", kind, values.shape)
        step = max(PIECE // max(values.nbytes // len(values), 1), 1)
        for start in range(0, len(values), step):
            copy[start : start + step] = values[start : start + step]
        copy.flush()

    return np.load(cached("features", f"{key}.npy", unpack), mmap_mode="r")


def _read_safetensors(path: Path, names: Collection[str]) -> Arrays:
    size = path.stat().st_size
    with open(path, "rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > size:
            raise ValueError("its header is longer than the file")
        header = json.loads(stream.read(length))
    arrays: Arrays = {}
    for name, told in header.items():
        if name not in names:
            continue
        if told["dtype"] not in _TYPES:
            raise ValueError(f"'{name}' is {told['dtype']}: save it as F32 or F16")
        shape, start = tuple(told["shape"]), 8 + length + told["data_offsets"][0]
        arrays[name] = np.memmap(path, _TYPES[told["dtype"]], "r", start, shape)
    return arrays


READERS: dict[str, Callable[[Path, Collection[str]], Arrays]] = {
    ".npz": _read_npz, ".h5": _read_hdf5, ".hdf5": _read_hdf5, ".npy": _read_npy,
    ".safetensors": _read_safetensors,
}  # fmt: skip
"""Ending of a file's name → function that reads its arrays of given names."""
