"""``codes.h5``: the codes of a run, packed, with labels and row numbers.

Groups ``query`` and ``database``, each with ``<modality>`` uint8 [N, ⌈K/8⌉], ``labels`` uint8 [N,C]
and ``rows`` int64 [N] (row numbers in the dataset). File attributes: ``bits``, ``bit_order``
(``little``: the first bit is the least significant of the first byte), ``split_hash``; what the
codes were made with, by content: ``encoder``, ``data``, ``generated``, ``files``; ``crc32``: of the
names, types, shapes and values of all arrays; files of earlier versions have none.
"""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.codes import pack_codes, unpack_codes
from common.storage.identity import Identity
from utils.errors import UserError
from utils.files import atomic_path
from utils.hdf5_file import open_hdf5

if TYPE_CHECKING:
    import h5py


@dataclasses.dataclass(frozen=True)
class CodeSet:
    """Codes of one part of a split."""

    codes: dict[str, np.ndarray]  # modality → int8 [N,K] of ±1
    labels: np.ndarray  # uint8 [N,C]
    rows: np.ndarray  # int64 [N], row numbers in the dataset


def write_codes(
    path: Path, query: CodeSet, database: CodeSet, split_hash: str,
    identity: Identity | None = None,
) -> None:  # fmt: skip
    """Write ``codes.h5`` atomically."""
    import h5py

    bits = next(iter(query.codes.values())).shape[1]
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"bits": bits, "bit_order": "little", "split_hash": split_hash})
        file.attrs.update({} if identity is None else identity.as_json())
        for name, part in (("query", query), ("database", database)):
            group = file.create_group(name)
            for modality, codes in part.codes.items():
                group[modality] = pack_codes(codes)
            group["labels"] = part.labels
            group["rows"] = part.rows
        file.attrs["crc32"] = _content(file)


def read_codes(path: Path) -> tuple[CodeSet, CodeSet, str]:
    """Return query codes, database codes and the split hash.

    Raises:
        UserError: a missing file, a damaged one, or one without codes of a run.
    """
    try:
        with open_hdf5(path) as file:
            check_content(file)
            bits = int(file.attrs["bits"])
            sets = [_read_part(file[name], bits) for name in ("query", "database")]
            return sets[0], sets[1], str(file.attrs["split_hash"])
    except (*BROKEN, UserError) as error:
        reason = " ".join(str(error).split()).removesuffix(".")
        raise UserError(f"'{path}' is missing or holds no codes of a run ({reason}).") from error


BROKEN = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError)
"""What h5py and numpy raise for a file that is damaged or another."""


def check_content(file: h5py.File) -> None:
    """Compare an open ``codes.h5`` with its checksum, if it has one.

    Raises:
        UserError: they differ.
    """
    stored = file.attrs.get("crc32")
    if stored is not None and stored != _content(file):
        raise UserError("it is damaged: its checksum differs")


def _content(file: h5py.File) -> str:
    """Return the CRC-32 of all arrays, 8 hex digits."""
    total = 0
    for part in ("query", "database"):
        for name in sorted(file[part]):
            array = file[part][name]
            total = zlib.crc32(f"{part}/{name} {array.dtype.str} {array.shape};".encode(), total)
            rows = max(1, _BLOCK // max(1, array.dtype.itemsize * int(np.prod(array.shape[1:]))))
            for start in range(0, len(array), rows):
                total = zlib.crc32(array[start : start + rows].tobytes(), total)
    return f"{total:08x}"


_BLOCK = 1 << 24  # bytes


def read_identity(path: Path) -> dict[str, str]:
    """Return what the codes were made with, by content; ``{}`` where the file does not say.

    Raises:
        UserError: the file cannot be read.
    """
    import h5py

    names = [field.name for field in dataclasses.fields(Identity)]
    try:
        with h5py.File(path, "r") as file:
            return {name: str(file.attrs[name]) for name in names if name in file.attrs}
    except OSError as error:
        raise UserError(f"'{path}' is missing or holds no codes of a run ({error}).") from error


def _read_part(group: h5py.Group, bits: int) -> CodeSet:
    codes = {m: unpack_codes(group[m][:], bits) for m in ("image", "text") if m in group}
    labels, rows = group["labels"][:], group["rows"][:]
    if labels.ndim != 2 or rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise UserError(f"labels {labels.shape} and rows {rows.shape} are not [N,C] and [N]")
    if not codes or {len(part) for part in codes.values()} | {len(labels)} != {len(rows)}:
        raise UserError(f"codes, labels and rows of '{group.name}' differ in number")
    return CodeSet(codes, labels, rows)
