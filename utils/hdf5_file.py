"""HDF5 files of unknown origin: only what lies in the file itself is read.

HDF5 can name other files: by external links, as the raw storage of a dataset, and as the sources of
a virtual one, where a missing source even reads as zeros. A file from elsewhere would so show files
of this machine. What does so is refused; soft links stay, for they lead into the file.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import UserError
from utils.files import check_plain_file, readable

if TYPE_CHECKING:
    import h5py

MOST_CHUNK_MB = 256
"""MiB of the largest compressed chunk, where the caller has no bound of its own."""
_MATLAB_CELLS = b"#refs#/"


@contextlib.contextmanager
def open_hdf5(path: Path, memory_mb: float = MOST_CHUNK_MB) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, all of whose links and datasets lie in it.

    Errors of reading are h5py's.

    Raises:
        UserError: a pipe or device, what leads out of the file, or a compressed chunk beyond
            ``memory_mb``: one is unpacked whole, however little of it is read.
    """
    import h5py

    check_plain_file(path)
    with h5py.File(path, "r") as file:
        for name in _names(path, file):
            if not name.startswith(_MATLAB_CELLS):
                check_dataset(path, file[name], memory_mb)
        yield file


def _names(path: Path, file: h5py.File) -> list[bytes]:
    """Return the names of all objects; refuse links to other files."""
    import h5py

    names: list[bytes] = []
    leaving: list[bytes] = []

    def look(name: bytes, info: Any) -> None:  # an exception could not pass through HDF5
        if info.type == h5py.h5l.TYPE_HARD:
            names.append(name)
        elif info.type != h5py.h5l.TYPE_SOFT:
            leaving.append(name)

    file.id.links.visit(look, info=True)
    if leaving:
        shown = leaving[0].decode(errors="replace")
        raise _leaves(path, f"'{shown}' is a link to another file")
    return names


def check_dataset(path: Path, item: Any, memory_mb: float = MOST_CHUNK_MB) -> None:
    """Refuse a dataset as :func:`open_hdf5` does; what is no dataset passes.

    It is for the cells of MATLAB's files, of which there may be a million, each checked as it is
    read; all other datasets are checked when their file is opened.
    """
    import h5py

    if not isinstance(item, h5py.Dataset):
        return
    properties = item.id.get_create_plist()
    layout = properties.get_layout()
    if layout == h5py.h5d.VIRTUAL:
        raise _leaves(path, f"'{item.name}' is virtual: its numbers are in other files")
    if properties.get_external_count():
        raise _leaves(path, f"'{item.name}' has its numbers in another file")
    if layout == h5py.h5d.CHUNKED and properties.get_nfilters():
        size = math.prod(properties.get_chunk()) * item.dtype.itemsize
        if size > memory_mb * 2**20:
            raise UserError(
                f"'{path}': '{item.name}' is packed in chunks of {readable(size)}, each read as a "
                f"whole, and {memory_mb:g} MiB are allowed (--memory-mb, where the command has "
                "it); write it in smaller chunks."
            )


def _leaves(path: Path, state: str) -> UserError:
    return UserError(
        f"'{path}': {state}, which is not followed; write all into one file, for example by "
        "copying the arrays with h5py."
    )
