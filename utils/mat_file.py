"""Variables of MATLAB's ``.mat`` files: up to v7 (and scipy's) by scipy, v7.3 by h5py."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError


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
    if not is_hdf5(path):
        return _read_v5(path, keys)
    import h5py

    try:
        with h5py.File(path, "r") as file:
            present = _present(path, keys, (key for key in file if not key.startswith("#")))
            return {key: _read_h5(file, file[key], text) for key in present}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(f"'{path}' cannot be read as a MATLAB v7.3 file ({error}).") from error


def is_hdf5(path: Path) -> bool:
    """Return whether ``path`` is a v7.3 file, which is HDF5."""
    import h5py

    return bool(h5py.is_hdf5(path))


def _read_v5(path: Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read from a file of MATLAB v4 to v7 or of scipy."""
    import scipy.io
    import scipy.sparse

    try:
        variables = scipy.io.loadmat(path, appendmat=False)
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error}).") from error
    except Exception as error:  # scipy raises many kinds on a file that is no MATLAB file
        raise UserError(
            f"'{path}' is not a MATLAB .mat file, or it is cut short ({error})."
        ) from error
    arrays = {}
    for key in _present(path, keys, (name for name in variables if not name.startswith("__"))):
        value = variables[key]
        arrays[key] = value.toarray() if scipy.sparse.issparse(value) else np.asarray(value)
    return arrays


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


def _read_h5(file: Any, item: Any, text: bool) -> np.ndarray:
    """Read one HDF5 dataset in MATLAB's conventions (axes reversed, cells as references)."""
    import h5py

    if not isinstance(item, h5py.Dataset):
        raise ValueError(f"{item.name} is a struct or an object, not an array")
    kind = item.attrs.get("MATLAB_class", b"")
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if h5py.check_string_dtype(item.dtype) is not None:  # written by Python, not by MATLAB
        return np.asarray(item.asstr()[()])
    if item.attrs.get("MATLAB_empty", 0):
        return np.array([], dtype="<U1" if kind == "char" else object)
    if h5py.check_ref_dtype(item.dtype) is not None:
        stored = np.asarray(item[()])
        cells = np.empty(stored.shape, dtype=object)
        for index, reference in np.ndenumerate(stored):
            cells[index] = _read_h5(file, file[reference], text)
        return cells.T
    values = np.asarray(item[()]).T
    if kind == "char" or (text and not kind and values.dtype == np.uint16):
        rows = np.atleast_2d(values)
        return np.array(["".join(map(chr, row)) for row in rows])
    return values
