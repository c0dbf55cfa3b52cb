"""Files with query and database codes of one or both modalities.

Two kinds: ``codes.h5`` of a run, and the ``.mat`` result files of the released code of DCMHT, MITH
and related methods, with these variables:

    q_img, q_txt   query codes, Q×K          q_l   query labels, Q×C
    r_img, r_txt   database codes, N×K       r_l   database labels, N×C
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from common.code_files.code_source import CodeSource, Stored, source_of
from common.code_files.readers import open_codes
from common.code_files.run_codes import BROKEN, check_content
from utils.errors import UserError
from utils.files import check_plain_file
from utils.hdf5_file import MOST_CHUNK_MB, open_hdf5
from utils.mat_file import is_hdf5, read_variables

MODALITIES = {"image": "img", "text": "txt"}
_SIDES = {"query": "q", "database": "r"}
_VARIABLES = ("q_img", "q_txt", "r_img", "r_txt", "q_l", "r_l")
_ACCEPTED = "q_img, q_txt, r_img, r_txt (codes, N×K) and q_l, r_l (labels, N×C of 0/1)"


@dataclasses.dataclass(frozen=True)
class CodePair:
    """Query and database, each as modality → codes with labels."""

    name: str  # the file, for messages
    query: dict[str, CodeSource]
    database: dict[str, CodeSource]
    split_hash: str | None = None


def open_run(path: str | Path, *, memory_mb: float = MOST_CHUNK_MB) -> CodePair:
    """Return the codes of a run folder or of a ``codes.h5``; they are read on use.

    ``memory_mb`` is that of :func:`open_codes`.

    Raises:
        UserError: neither of them, or a broken file.
    """
    import h5py

    path = Path(path)
    file = path / "codes.h5" if path.is_dir() else path
    check_plain_file(file)
    if not file.is_file():
        raise UserError(
            f"'{path}' is not a run folder with a codes.h5 in it, nor such a file; give the path "
            "that train printed."
        )
    try:
        with open_hdf5(file, memory_mb) as content:
            split_hash = content.attrs.get("split_hash")
            parts = {
                side: [
                    m for m in MODALITIES if isinstance(content.get(f"{side}/{m}"), h5py.Dataset)
                ]
                for side in _SIDES
            }
            if all(parts.values()):
                check_content(content)
    except (*BROKEN, UserError) as error:
        reason = " ".join(str(error).split()).removesuffix(".")
        raise UserError(f"'{file}' holds no codes of a run ({reason}).") from error
    if not all(parts.values()):
        raise UserError(
            f"'{file}' holds no codes of a run: query/image or query/text, and database/image or "
            "database/text are needed."
        )
    query, database = (
        {
            modality: open_codes(f"{file}:{side}/{modality}", memory_mb=memory_mb)
            for modality in modalities
        }
        for side, modalities in parts.items()
    )
    return CodePair(str(path), query, database, None if split_hash is None else str(split_hash))


def open_mat(path: str | Path, *, strict: bool = False) -> CodePair:
    """Return the codes of a ``.mat`` result file, of any MATLAB version, read into memory.

    Labels may also be class numbers, as a row or a column. ``strict`` refuses codes other than ±1,
    0 and 1.

    Raises:
        UserError: no such file, a broken one, a variable missing or of another shape.
    """
    file = Path(path)
    check_plain_file(file)
    if not file.is_file():
        raise UserError(f"'{file}' is no file; a .mat file with {_ACCEPTED} is needed.")
    variables = read_variables(file, _VARIABLES)
    if is_hdf5(file) and not _rows_agree(variables):
        transposed = {name: value.T for name, value in variables.items()}
        if _rows_agree(transposed):  # written by Python with rows first
            variables = transposed
    missing = [name for name in ("q_l", "r_l") if name not in variables]
    for letter in _SIDES.values():
        if not any(f"{letter}_{short}" in variables for short in MODALITIES.values()):
            missing.append(f"{letter}_img or {letter}_txt")
    if missing:
        raise UserError(
            f"'{file}' holds {', '.join(variables)}, so {', '.join(missing)} is missing; accepted "
            f"is {_ACCEPTED}."
        )
    query, database = (
        {
            modality: _mat_source(file, variables, f"{letter}_{short}", f"{letter}_l", strict)
            for modality, short in MODALITIES.items()
            if f"{letter}_{short}" in variables
        }
        for letter in _SIDES.values()
    )
    return CodePair(str(file), query, database)


def _mat_source(
    file: Path, variables: dict[str, np.ndarray], codes: str, labels: str, strict: bool
) -> CodeSource:
    """Return one matrix of codes with its labels."""
    name = f"{file}:{codes}"
    try:
        rows = len(np.atleast_1d(variables[codes]))
        stored = Stored(variables[codes], _flat_class_numbers(variables[labels], rows))
        return source_of(name, stored, strict=strict)
    except UserError as error:
        message = str(error).removesuffix(".")
        raise UserError(f"'{name}' with {labels}: {message}; accepted is {_ACCEPTED}.") from error


def _flat_class_numbers(labels: np.ndarray, rows: int) -> np.ndarray:
    """Return class numbers that MATLAB stored as a row as a flat array; a column is one anyhow."""
    if labels.dtype.kind not in "biuf" or labels.ndim != 2:
        return labels
    is_row = labels.shape == (1, rows) and rows > 1
    return labels.reshape(-1) if is_row else labels


def _rows_agree(variables: dict[str, np.ndarray]) -> bool:
    """Tell whether codes and labels have as many rows on each side, and codes as many columns."""
    widths: set[tuple[int, ...]] = set()
    for letter in _SIDES.values():
        names = [f"{letter}_{short}" for short in MODALITIES.values()]
        codes = [variables[name] for name in names if name in variables]
        widths.update(array.shape[1:] for array in codes)
        rows = {array.shape[:1] for array in codes}
        labels = variables.get(f"{letter}_l")
        if labels is not None and labels.shape != (1, *next(iter(rows), ())):
            rows.add(labels.shape[:1])
        if len(rows) > 1:
            return False
    return len(widths) <= 1
