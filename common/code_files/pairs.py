"""Files that hold both sides, query and database, of both modalities.

Two kinds: ``codes.h5`` of a run, and the ``.mat`` result files that the released code of DCMHT,
MITH and their relatives writes, with these variables:

    q_img, q_txt   query codes, Q×K          q_l   query labels, Q×C
    r_img, r_txt   database codes, N×K       r_l   database labels, N×C
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from common.code_files.code_source import CodeSource, Stored, source_of
from common.code_files.readers import open_codes
from utils.errors import UserError
from utils.mat_file import is_hdf5, read_variables

MODALITIES = {"image": "img", "text": "txt"}
_SIDES = {"query": "q", "database": "r"}
_VARIABLES = ("q_img", "q_txt", "r_img", "r_txt", "q_l", "r_l")
_ACCEPTED = "q_img, q_txt, r_img, r_txt (codes, N×K) and q_l, r_l (labels, N×C of 0/1)"


@dataclasses.dataclass(frozen=True)
class CodePair:
    """Query and database, each as modality → codes with labels.

    Attributes:
        name: the file, for messages.
        query: the query's codes by modality.
        database: the database's.
        split_hash: hash of the split, None where a file carries none.
    """

    name: str
    query: dict[str, CodeSource]
    database: dict[str, CodeSource]
    split_hash: str | None = None


def open_run(path: str | Path) -> CodePair:
    """Return the codes of a run folder or of a ``codes.h5``; they are read when they are used.

    Raises:
        UserError: neither of them, or a broken file.
    """
    import h5py

    given = Path(path)
    file = given / "codes.h5" if given.is_dir() else given
    if not file.is_file():
        raise UserError(
            f"'{given}' is not a run folder with a codes.h5 in it, nor such a file; give the path "
            "that train printed."
        )
    try:
        with h5py.File(file, "r") as content:
            split_hash = content.attrs.get("split_hash")
            parts = {
                side: [
                    m for m in MODALITIES if isinstance(content.get(f"{side}/{m}"), h5py.Dataset)
                ]
                for side in _SIDES
            }
    except (OSError, KeyError, RuntimeError) as error:
        raise UserError(f"'{file}' holds no codes of a run ({error}).") from error
    if not all(parts.values()):
        raise UserError(
            f"'{file}' holds no codes of a run: query/image or query/text, and database/image or "
            "database/text are needed."
        )
    query, database = (
        {modality: open_codes(f"{file}:{side}/{modality}") for modality in found}
        for side, found in parts.items()
    )
    return CodePair(str(given), query, database, None if split_hash is None else str(split_hash))


def open_mat(path: str | Path, *, strict: bool = False) -> CodePair:
    """Return the codes of a ``.mat`` result file, of any MATLAB version, whole in memory.

    Labels may also be class numbers, as a row or a column.

    Args:
        path: the file.
        strict: refuse codes other than ±1, 0 and 1.

    Raises:
        UserError: no such file, a broken one, a variable missing or of another shape.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"'{file}' is no file; a .mat file with {_ACCEPTED} is needed.")
    found = read_variables(file, _VARIABLES)
    if is_hdf5(file) and not _rows_agree(found):
        turned = {name: value.T for name, value in found.items()}
        if _rows_agree(turned):  # written by Python in its own order of axes
            found = turned
    missing = [name for name in ("q_l", "r_l") if name not in found]
    for letter in _SIDES.values():
        if not any(f"{letter}_{short}" in found for short in MODALITIES.values()):
            missing.append(f"{letter}_img or {letter}_txt")
    if missing:
        raise UserError(
            f"'{file}' holds {', '.join(found)}, so {', '.join(missing)} is missing; accepted is "
            f"{_ACCEPTED}."
        )
    query, database = (
        {
            modality: _mat_source(file, found, f"{letter}_{short}", f"{letter}_l", strict)
            for modality, short in MODALITIES.items()
            if f"{letter}_{short}" in found
        }
        for letter in _SIDES.values()
    )
    return CodePair(str(file), query, database)


def _mat_source(
    file: Path, found: dict[str, np.ndarray], codes: str, labels: str, strict: bool
) -> CodeSource:
    """Return one matrix of codes with its labels."""
    name = f"{file}:{codes}"
    try:
        marks = _flat_class_numbers(found[labels], len(np.atleast_1d(found[codes])))
        return source_of(name, Stored(found[codes], marks), strict=strict)
    except UserError as error:
        told = str(error).removesuffix(".")
        raise UserError(f"'{name}' with {labels}: {told}; accepted is {_ACCEPTED}.") from error


def _flat_class_numbers(labels: np.ndarray, rows: int) -> np.ndarray:
    """Return class numbers, which MATLAB can only hold as a row or a column, as a flat array."""
    if labels.dtype.kind not in "biuf" or labels.ndim != 2:
        return labels
    is_row = labels.shape == (1, rows) and rows > 1
    is_column = labels.shape == (rows, 1) and bool((labels > 1).any())
    return labels.reshape(-1) if is_row or is_column else labels


def _rows_agree(found: dict[str, np.ndarray]) -> bool:
    """Tell whether codes and labels have as many rows on each side, and codes as many columns."""
    widths: set[tuple[int, ...]] = set()
    for letter in _SIDES.values():
        codes = [found[f"{letter}_{s}"] for s in MODALITIES.values() if f"{letter}_{s}" in found]
        widths.update(array.shape[1:] for array in codes)
        rows = {array.shape[:1] for array in codes}
        labels = found.get(f"{letter}_l")
        if labels is not None and labels.shape != (1, *next(iter(rows), ())):
            rows.add(labels.shape[:1])
        if len(rows) > 1:
            return False
    return len(widths) <= 1
