"""Variables of MATLAB's ``.mat`` files: up to v7 (and scipy's) by scipy, v7.3 by h5py."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.files import check_plain_file, readable
from utils.hdf5_file import check_dataset, open_hdf5
from utils.memory import MOST_INFLATED, check_fits

_PACKED = 15  # the type of a deflated element
_V5_BYTES = {"double": 8, "sparse": 8, "cell": 8, "single": 4, "int64": 8, "uint64": 8} | {
    "int32": 4, "uint32": 4, "int16": 2, "uint16": 2, "char": 4,
}  # fmt: skip
_DEEPEST = 8  # cells in cells


def read_variable(path: Path, keys: tuple[str, ...], text: bool = False) -> np.ndarray:
    """Return the variable of ``path`` with the first name of ``keys`` that it has.

    Arguments, form and errors are those of :func:`read_variables`.
    """
    return next(iter(read_variables(path, keys, text).values()))


def read_variables(path: Path, keys: tuple[str, ...], text: bool = False) -> dict[str, np.ndarray]:
    """Return the variables of ``path`` with a name in ``keys``, in the order of ``keys``.

    Numbers come as MATLAB shows them (rows first), also from v7.3 files, which store them the other
    way round. Text comes as arrays of ``str`` or, for cells, as object arrays, perhaps nested;
    ``text`` makes 16-bit numbers characters in a v7.3 file without type notes.

    Raises:
        UserError: not a MATLAB file, a broken one, or none of the names in it.
    """
    check_plain_file(path)
    if not is_hdf5(path):
        return _read_v5(path, keys)
    try:
        with open_hdf5(path) as file:
            present = _present(path, keys, (key for key in file if not key.startswith("#")))
            reader = _Hdf5Reader(path, file, text)
            return {key: reader.read(file[key]) for key in present}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(f"'{path}' cannot be read as a MATLAB v7.3 file ({error}).") from error


def is_hdf5(path: Path) -> bool:
    """Return whether ``path`` is a v7.3 file, which is HDF5."""
    import h5py

    return bool(h5py.is_hdf5(path))


def _read_v5(path: Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read from a file of MATLAB v4 to v7 or of scipy; what headers claim is checked first."""
    import scipy.io

    try:
        _check_elements(path)
        headers = scipy.io.whosmat(path, appendmat=False)
        names = [name for name, _, _ in headers if not name.startswith("__")]
        present = _present(path, keys, names)
        for name, shape, kind in headers:
            if name in present:  # a matrix without zeros is filled with them: its shape counts
                width = _V5_BYTES.get(kind, 1)
                check_fits(f"'{path}': '{name}', {list(shape)},", math.prod(shape) * width)
        variables = scipy.io.loadmat(path, appendmat=False, variable_names=present)
        return {key: _dense(variables[key]) for key in present}
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error}).") from error
    except Exception as error:  # scipy raises many kinds on a file that is no MATLAB file
        raise UserError(
            f"'{path}' is not a MATLAB .mat file, or it is cut short ({error})."
        ) from error


def _dense(value: Any) -> np.ndarray:
    import scipy.sparse

    return value.toarray() if scipy.sparse.issparse(value) else np.asarray(value)


def _check_elements(path: Path) -> None:
    """Refuse a file of v5 to v7 whose packed variables claim what they cannot hold.

    After 128 bytes of header come elements: a type, a size in bytes, the content. That of a packed
    one starts, unpacked, with type and size of the variable.
    """
    size = path.stat().st_size
    with open(path, "rb") as stream:
        header = stream.read(128)
        order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
        if len(header) < 128 or order is None or 0 in header[:4]:
            return  # of v4, whose sizes scipy compares, or no such file
        while len(tag := stream.read(8)) == 8:
            kind, length = struct.unpack(f"{order}II", tag)
            start = stream.tell()
            if kind == _PACKED:
                inner = zlib.decompressobj().decompress(stream.read(min(length, 256)), 8)
                claimed = struct.unpack(f"{order}II", inner)[1] if len(inner) == 8 else 0
                if claimed > MOST_INFLATED * (length + 100):
                    raise UserError(
                        f"'{path}' claims {readable(claimed)} in {readable(length)}; it is damaged "
                        "or made up, so it is not read."
                    )
                check_fits(f"'{path}'", claimed)
            if start + length > size:
                raise OSError(f"{readable(length)} are claimed where the file ends")
            stream.seek(start + length)


def _present(path: Path, keys: tuple[str, ...], names: Iterable[str]) -> list[str]:
    """Return those of ``keys`` that are among ``names``, or refuse a file with none."""
    all_names = list(names)
    present = [key for key in keys if key in all_names]
    if not present:
        raise UserError(
            f"'{path}' holds {', '.join(all_names) or 'no variable'}; one of {', '.join(keys)} is "
            "needed."
        )
    return present


class _Hdf5Reader:
    """Reads the variables of a v7.3 file (axes reversed, cells as references)."""

    def __init__(self, path: Path, file: Any, text: bool) -> None:
        self._path, self._file, self._text = path, file, text
        self._claimed = 0  # bytes of all that was read: cells may name the same content often

    def read(self, item: Any, depth: int = 0) -> np.ndarray:
        """Read one dataset, and the cells in it."""
        import h5py

        if not isinstance(item, h5py.Dataset):
            raise ValueError(f"{item.name} is a struct or an object, not an array")
        if depth > _DEEPEST:
            raise ValueError(f"cells in cells, deeper than {_DEEPEST}")
        check_dataset(self._path, item)
        self._claimed += item.size * item.dtype.itemsize
        check_fits(f"'{self._path}': '{item.name}' with what was read before", self._claimed)
        kind = item.attrs.get("MATLAB_class", b"")
        kind = kind.decode() if isinstance(kind, bytes) else str(kind)
        if h5py.check_string_dtype(item.dtype) is not None:  # written by Python, not by MATLAB
            return np.asarray(item.asstr()[()])
        if item.attrs.get("MATLAB_empty", 0):
            return np.array([], dtype="<U1" if kind == "char" else object)
        if h5py.check_ref_dtype(item.dtype) is not None:
            return self._cells(item, depth)
        values = np.asarray(item[()]).T
        if kind == "char" or (self._text and not kind and values.dtype == np.uint16):
            rows = np.atleast_2d(values)
            return np.array(["".join(map(chr, row)) for row in rows])
        return values

    def _cells(self, item: Any, depth: int) -> np.ndarray:
        stored = np.asarray(item[()])
        cells = np.empty(stored.shape, dtype=object)
        for index, reference in np.ndenumerate(stored):
            cells[index] = self.read(self._file[reference], depth + 1)
        return cells.T
