"""Files of codes as sources: npz, npy, and HDF5, of this project's runs or of any origin.

Nothing in a file is executed: arrays of pickled objects are refused.
"""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from common.code_files.code_source import CodeSource, Opener, Stored, source_of
from utils.errors import UserError
from utils.files import check_plain_file
from utils.hdf5_file import MOST_CHUNK_MB, check_dataset, open_hdf5
from utils.numpy_file import check_numpy

if TYPE_CHECKING:
    import h5py

ACCEPTED = (
    "an npz or HDF5 file with 'codes' (N×K of ±1, 0/1 or real values) or 'packed' (uint8, LSB "
    "first) and 'bits', and 'labels' (N×C of 0/1, or N or N×1 class numbers), a part of an HDF5 "
    "file as FILE.h5:PART, or an npy of codes with an npy of labels"
)
_HDF5_SUFFIXES = (".h5", ".hdf5", ".he5")
_BROKEN = (
    ValueError,
    OSError,
    EOFError,
    KeyError,
    MemoryError,
    RuntimeError,  # an encrypted zip member, a damaged HDF5 chunk
    NotImplementedError,  # an unknown compression
    SyntaxError,  # a mangled array header
    zipfile.BadZipFile,
    zlib.error,
)


class _Layout(NamedTuple):
    """Where codes and labels are in a file."""

    stored: Stored | Opener
    bits: int | None  # of packed codes
    has_labels: bool
    names: str  # of the arrays in the file, for the message that labels are missing


def open_codes(
    file: str | Path,
    labels: str | Path | None = None,
    *,
    strict: bool = False,
    labelled: bool = True,
    memory_mb: float = MOST_CHUNK_MB,
) -> CodeSource:
    """Return the codes and labels of a file as a source; large files are not read into memory.

    Args:
        file: an npz with ``codes`` [N,K] (±1, 0/1, bool or real: the sign is taken) or ``packed``
            uint8 [N,⌈K/8⌉] and ``bits``, and ``labels`` [N,C] of 0/1 or class numbers [N] or
            [N,1]; an HDF5 file with datasets of these names; ``FILE.h5:PART`` for a group or
            dataset in it, such as ``codes.h5:query/image`` in a run folder; or an npy of codes.
        labels: an npy of labels, in place of those in ``file``.
        strict: refuse values other than ±1, 0 and 1.
        labelled: whether labels are needed.
        memory_mb: MiB that a compressed chunk of an HDF5 file may take.

    Raises:
        UserError: no such file, another format, an array missing, of another shape or with NaN,
            pickled objects, not as many labels as codes, or what :mod:`utils.numpy_file` and
            :mod:`utils.hdf5_file` refuse.
    """
    path, part = _split_part(str(file))
    check_plain_file(path)
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"'{path}' {state}; accepted is {ACCEPTED}.")
    with _explain_errors(path):
        layout = _hdf5(path, part, memory_mb) if part or _is_hdf5(path) else _numpy(path)
    if labels is not None:
        layout = layout._replace(stored=_relabelled(layout.stored, labels), has_labels=True)
    if labelled and not layout.has_labels:
        raise UserError(f"'{file}': Found {layout.names}, so no 'labels'; accepted is {ACCEPTED}.")
    try:
        return source_of(str(file), layout.stored, layout.bits, strict=strict)
    except UserError as error:
        which = f"'{file}'" if labels is None else f"'{file}' with labels '{labels}'"
        message = str(error).removesuffix(".")
        raise UserError(f"{which}: {message}; accepted is {ACCEPTED}.") from error


@contextlib.contextmanager
def _explain_errors(path: Path) -> Iterator[None]:
    """Turn the errors of a broken file into a :class:`UserError`."""
    try:
        yield
    except PermissionError as error:
        raise UserError(f"'{path}' may not be read: permission denied.") from error
    except _BROKEN as error:
        raise UserError(
            f"'{path}' is not a readable file of codes; accepted is {ACCEPTED}."
        ) from error


def _split_part(file: str) -> tuple[Path, str]:
    """Return the file and the part of it that ``FILE.h5:PART`` means."""
    head, separator, part = file.rpartition(":")
    if separator and not Path(file).exists() and head.lower().endswith(_HDF5_SUFFIXES):
        return Path(head), part
    return Path(file), ""


def _is_hdf5(path: Path) -> bool:
    """Tell HDF5 by its first bytes, or by its name so that damage is reported as such."""
    with open(path, "rb") as stream:
        return stream.read(8) == b"\x89HDF\r\n\x1a\n" or path.suffix.lower() in _HDF5_SUFFIXES


def _numpy(path: Path) -> _Layout:
    """Lay out an npz or npy file."""
    if path.suffix.lower() == ".mat":
        raise UserError(f"'{path}' is a MATLAB file; give one with both sides in it by --mat.")
    loaded = _load(path)
    if isinstance(loaded, np.ndarray):
        return _Layout(Stored(loaded), None, False, "a single array")
    with loaded:
        names = list(loaded.files)
        known = [name for name in ("codes", "packed", "bits", "labels") if name in names]
        arrays = {name: _member(loaded, name, path) for name in known}
    packed = "codes" not in arrays
    if packed and not ("packed" in arrays and "bits" in arrays):
        raise _neither(path, names)
    return _Layout(
        Stored(arrays["packed" if packed else "codes"], arrays.get("labels")),
        _whole_number(path, arrays["bits"]) if packed else None,
        "labels" in arrays,
        _listed(names),
    )


def _load(path: Path) -> Any:
    """Open an npz, or map an npy into memory; refuse pickled objects and made-up sizes."""
    check_numpy(path)
    try:
        with np.errstate(all="ignore"):
            return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "Python objects" not in str(error):
            raise
        raise _pickled(path) from error


def _member(archive: Any, name: str, path: Path) -> np.ndarray:
    """Return one array of an open npz; refuse pickled objects and members that are no arrays."""
    try:
        value = archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise _pickled(path, f" under '{name}'") from error
    if not isinstance(value, np.ndarray):
        raise UserError(f"'{path}' has no array under '{name}'; accepted is {ACCEPTED}.")
    return value


def read_array(file: str | Path, what: str) -> np.ndarray:
    """Return the array in an npy file.

    Raises:
        UserError: no such file, or another one; says that ``what`` is needed.
    """
    path = Path(file)
    check_plain_file(path)
    if not path.is_file():
        raise UserError(f"'{path}' does not exist; {what}.")
    with _explain_errors(path):
        array = _load(path)
    if not isinstance(array, np.ndarray):
        raise UserError(f"'{path}' is an npz; {what}.")
    return array


def _relabelled(stored: Stored | Opener, file: str | Path) -> Stored | Opener:
    """Return stored arrays with the labels of an npy file in place of theirs."""
    labels = read_array(file, "labels are an npy of N×C or N numbers")
    if isinstance(stored, Stored):
        return stored._replace(labels=labels)

    @contextlib.contextmanager
    def opened() -> Iterator[Stored]:
        with stored() as content:
            yield content._replace(labels=labels)

    return opened


def _hdf5(path: Path, part: str, memory_mb: float) -> _Layout:
    """Lay out an HDF5 file, or the group or dataset ``part`` of one."""
    import h5py

    with open_hdf5(path, memory_mb) as file:
        item = file.get(part) if part else file
        if item is None:
            raise UserError(f"'{path}' has no '{part}'{_choices(file, path)}.")
        check_dataset(path, item, memory_mb)
        folder = item.parent if isinstance(item, h5py.Dataset) else item
        names = sorted(folder)
        values = item if isinstance(item, h5py.Dataset) else None
        for name in ("codes", "packed"):
            if values is None and isinstance(folder.get(name), h5py.Dataset):
                values = folder[name]
        if values is None:
            raise _neither(path, names, _choices(file, path))
        bits = _stated_bits(path, values, folder)
        is_packed = values.name.endswith("/packed") or (
            bits is not None and values.dtype == np.uint8 and not values.name.endswith("/codes")
        )
        if is_packed and bits is None:
            raise _neither(path, names)
        marks = folder.get("labels")
        labels = marks.name if isinstance(marks, h5py.Dataset) else None
        opened = partial(_opened_hdf5, path, values.name, labels)
        return _Layout(opened, bits if is_packed else None, labels is not None, _listed(names))


@contextlib.contextmanager
def _opened_hdf5(path: Path, values: str, labels: str | None) -> Iterator[Stored]:
    """Open the datasets of codes and labels for one pass."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield Stored(file[values], file[labels] if labels else None)
    except (OSError, RuntimeError) as error:  # a damaged block shows when it is read
        raise UserError(f"'{path}' cannot be read to its end ({error}).") from error


def _stated_bits(path: Path, values: h5py.Dataset, folder: h5py.Group) -> int | None:
    """Return the number of bits that attributes or a dataset ``bits`` beside the codes state."""
    for item in (values, folder, folder.file):
        order = item.attrs.get("bit_order", "little")
        if order not in ("little", b"little"):
            raise UserError(f"'{path}' packs bits MSB first; only LSB first is accepted.")
    if "bits" in folder:
        return _whole_number(path, np.asarray(folder["bits"][()]))
    for item in (values, folder, folder.file):
        if "bits" in item.attrs:
            return _whole_number(path, np.asarray(item.attrs["bits"]))
    return None


def _choices(file: h5py.File, path: Path) -> str:
    """Return the end of a message: the parts of the file that may be codes."""
    import h5py

    parts: list[str] = []

    def visit(name: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Dataset) and item.ndim == 2 and not name.endswith("labels"):
            parts.append(f"'{path}:{name}'")
        return True if len(parts) > 8 else None

    file.visititems(visit)
    return f"; choose one of {', '.join(parts)}" if parts else ""


def _whole_number(path: Path, bits: np.ndarray) -> int:
    if bits.size != 1 or bits.dtype.kind not in "iu":
        raise UserError(
            f"'{path}': 'bits' is {bits.dtype} {list(bits.shape)}, not one whole number; accepted "
            f"is {ACCEPTED}."
        )
    return int(bits.item())


def _neither(path: Path, names: list[str], choices: str = "") -> UserError:
    return UserError(
        f"'{path}': Found {_listed(names)}, so neither 'codes' nor 'packed' with 'bits'"
        f"{choices or f'; accepted is {ACCEPTED}'}."
    )


def _pickled(path: Path, location: str = "") -> UserError:
    return UserError(
        f"'{path}' holds pickled objects{location}, which are never loaded; accepted is {ACCEPTED}."
    )


def _listed(names: list[str]) -> str:
    """Return the names in a file for a message."""
    shown = ", ".join(f"'{name}'" for name in names[:8]) + (", …" if len(names) > 8 else "")
    return shown or "no arrays"
