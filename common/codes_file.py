"""Codes from anywhere: npz files of codes and labels, and the metrics between two of them."""

from __future__ import annotations

import time
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.codes import as_codes, unpack_codes
from common.metrics import as_labels, protocol, retrieval_report
from utils.errors import UserError

ACCEPTED = (
    "an npz with 'codes' (N×K of ±1, 0/1 or real values) or 'packed' (uint8, LSB first) and "
    "'bits', and 'labels' (N×C of 0/1, or N class numbers)"
)
_BROKEN = (
    ValueError,
    OSError,
    EOFError,
    MemoryError,
    RuntimeError,  # an encrypted member
    NotImplementedError,  # an unknown compression
    SyntaxError,  # a mangled array header
    zipfile.BadZipFile,
    zlib.error,
)


def load_codes(path: str | Path) -> tuple[NDArray[np.int8], NDArray[np.int64] | NDArray[np.bool_]]:
    """Read codes and labels from an npz file; nothing in it is executed.

    Args:
        path: npz with ``codes`` [N,K] (±1, 0/1, bool or real: the sign is taken) or ``packed``
            uint8 [N,ceil(K/8)] and ``bits`` = K, and with ``labels`` [N,C] of 0/1 or [N] of
            class numbers.

    Returns:
        Codes int8 [N,K] of ±1, and labels bool [N,C] or int64 [N].

    Raises:
        UserError: no such file, not an npz, an array missing, of another shape or with NaN, or
            pickled objects inside.
    """
    names, arrays = _read_arrays(Path(path))
    try:
        codes = _codes_of(names, arrays)
        if "labels" not in arrays:
            raise UserError(f"Found {_listed(names)}, so no 'labels'.")
        labels = as_labels(arrays["labels"])
    except UserError as error:
        found = str(error).removesuffix(".")
        raise UserError(f"'{path}': {found}; accepted is {ACCEPTED}.") from error
    if len(labels) != len(codes):
        raise UserError(
            f"'{path}' has {len(codes)} rows of codes and {len(labels)} of labels; each row of "
            "codes needs one of labels."
        )
    return codes, labels


def compare_files(
    query: str | Path,
    database: str | Path,
    at: Sequence[str | int] = ("all",),
    *,
    precision_at: Sequence[int] | None = None,
    no_relevant: str = "zero",
    device: torch.device | str | None = None,
    memory_mb: float = 256,
) -> dict[str, Any]:
    """Return the metrics of query codes against database codes, as in a run's ``metrics.json``.

    Args:
        query: npz file of the query, see :func:`load_codes`.
        database: npz file of the database.
        at: cuts of mAP, ``"all"`` or numbers of rows.
        precision_at: ranks of precision@N and recall@N, or None for the usual ones.
        no_relevant: queries without a relevant row: ``"zero"`` or ``"skip"``.
        device: where distances are counted; None = CPU.
        memory_mb: bound on temporary memory while counting, in MiB.

    Returns:
        ``protocol``, ``split_hash`` (None: files carry no split), ``directions`` with the one
        direction ``q2d``, and ``timing`` with ``time_s``, the seconds of the computation itself.

    Raises:
        UserError: a file that cannot be read, two that do not fit together, or a wrong option.
    """
    query_side, database_side = load_codes(query), load_codes(database)
    start = time.perf_counter()
    try:
        report = retrieval_report(
            *query_side,
            *database_side,
            at=at,
            precision_at=precision_at,
            no_relevant=no_relevant,
            device=device,
            memory_mb=memory_mb,
        )
    except UserError as error:
        raise UserError(f"'{query}' against '{database}': {error}") from error
    return {
        "protocol": protocol(no_relevant),
        "split_hash": None,
        "directions": {"q2d": report},
        "timing": {"time_s": time.perf_counter() - start},
    }


def _read_arrays(path: Path) -> tuple[list[str], dict[str, NDArray[Any]]]:
    """Return the names in an npz, and those of its arrays that concern us, never unpickled."""
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"'{path}' {found}; accepted is {ACCEPTED}.")
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UserError(f"'{path}' is a single npy array; accepted is {ACCEPTED}.")
        with archive:
            names = list(archive.files)
            wanted = [name for name in ("codes", "packed", "bits", "labels") if name in names]
            return names, {name: _member(archive, name, path) for name in wanted}
    except PermissionError as error:
        raise UserError(f"'{path}' may not be read: permission denied.") from error
    except _BROKEN as error:
        raise UserError(f"'{path}' is not a readable npz; accepted is {ACCEPTED}.") from error


def _member(archive: Any, name: str, path: Path) -> NDArray[Any]:
    """Return one array of an open npz; refuse pickled objects and members that are no arrays."""
    try:
        value = archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise UserError(
            f"'{path}' holds pickled objects under '{name}', which are never loaded; accepted is "
            f"{ACCEPTED}."
        ) from error
    if not isinstance(value, np.ndarray):
        raise UserError(f"'{path}' has no array under '{name}'; accepted is {ACCEPTED}.")
    return value


def _codes_of(names: list[str], arrays: dict[str, NDArray[Any]]) -> NDArray[np.int8]:
    """Return the codes [N,K] of one file, from whichever of its keys it has."""
    if "codes" in arrays:
        codes = as_codes(arrays["codes"])
    elif "packed" in arrays and "bits" in arrays:
        bits = arrays["bits"]
        if bits.size != 1 or bits.dtype.kind not in "iu":
            raise UserError(f"'bits' is {bits.dtype} {list(bits.shape)}, not one whole number.")
        codes = unpack_codes(arrays["packed"], int(bits.item()))
    else:
        raise UserError(f"Found {_listed(names)}, so neither 'codes' nor 'packed' with 'bits'.")
    if codes.ndim != 2 or 0 in codes.shape:
        raise UserError(f"Codes have shape {list(codes.shape)}, not [N,K] with N and K above 0.")
    return codes


def _listed(names: list[str]) -> str:
    """Return the names of an npz for a message."""
    shown = ", ".join(f"'{name}'" for name in names[:8]) + (", …" if len(names) > 8 else "")
    return shown or "no arrays"
