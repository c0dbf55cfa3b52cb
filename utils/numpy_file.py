"""``.npy`` and ``.npz`` files of unknown origin: headers are compared with the file before reading.

NumPy allocates what a header claims, and then looks for it in the file.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from utils.errors import UserError
from utils.files import check_plain_file, readable
from utils.memory import MOST_INFLATED, check_fits


@contextlib.contextmanager
def open_npz(path: Path) -> Iterator[Any]:
    """Open an ``.npz`` whose arrays are as large as their headers and its list of members say.

    Errors of reading are NumPy's and zipfile's; pickled objects are not read.

    Raises:
        UserError: a pipe or device, or an array that is not there in the size that is claimed.
    """
    check_numpy(path)
    with np.load(path, mmap_mode="r", allow_pickle=False) as archive:
        if isinstance(archive, np.ndarray):
            raise ValueError("it is a single array, not an npz")
        yield archive


def check_numpy(path: Path) -> None:
    """Check the headers of an ``.npz`` or ``.npy``; a file that is neither is left to NumPy.

    Raises:
        UserError: as :func:`open_npz`.
    """
    check_plain_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                _check_member(path, archive, info)
        return
    with open(path, "rb") as stream:
        _check_claim(f"'{path}'", stream, path.stat().st_size)


def _check_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    name = f"'{path}': the array '{info.filename.removesuffix('.npy')}'"
    if info.file_size > MOST_INFLATED * (info.compress_size + 100) and (
        info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ):
        held = readable(info.compress_size)
        raise _not_there(f"{name} claims {readable(info.file_size)}, packed into {held}")
    check_fits(name, info.file_size)
    with archive.open(info) as stream:
        _check_claim(name, stream, info.file_size)


def _check_claim(name: str, stream: IO[bytes], size: int) -> None:
    """Refuse an array whose header claims more than follows it in ``size`` bytes."""
    claimed = _claimed(stream)
    held = size - stream.tell()
    if claimed is not None and claimed > held:
        raise _not_there(f"{name} claims {readable(claimed)} of numbers, but has {readable(held)}")


def _claimed(stream: IO[bytes]) -> int | None:
    """Return the bytes of numbers that a header claims; None where there is none, or of objects."""
    try:
        version = np.lib.format.read_magic(stream)
    except ValueError:
        return None
    read = np.lib.format.read_array_header_2_0  # also of 3.0, whose names are UTF-8
    if version == (1, 0):
        read = np.lib.format.read_array_header_1_0
    shape, _, dtype = read(stream)
    if any(length < 0 for length in shape):
        raise ValueError(f"a negative shape {shape}")
    if dtype.hasobject:
        return None
    return math.prod(shape) * max(1, dtype.itemsize)


def _not_there(state: str) -> UserError:
    return UserError(f"{state}; it is damaged or made up, so it is not read.")
