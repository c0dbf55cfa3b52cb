"""The files of a finished run: read with care, and compared with what its ``status.json`` says."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from common.storage.checksums import stamp_of
from common.storage.metrics_shape import wrong_in_metrics
from utils.errors import UserError
from utils.files import crc32
from utils.yaml_file import read_yaml

Record = list[Any]
"""Of a file: its bytes, CRC-32, and stamp (:func:`common.storage.checksums.stamp_of`)."""


def record(file: Path) -> Record:
    """Return the record of a file."""
    stamp = stamp_of(file)  # before the reading: what changes meanwhile is read again
    return [stamp[1], crc32(file), stamp]


def damaged_file(folder: Path, records: Mapping[str, Record], but: Collection[str]) -> str | None:
    """Return which file of a run is not whole, and how; see ``RunFolder.damage``."""
    for name in sorted({*records, *_ESSENTIAL} - set(but)):
        file = folder / name
        try:
            if Path(name).name != name or not file.is_file():
                return f"{name} is missing"
            wrong = _differs(file, *records[name]) if name in records else None
            if name in _ESSENTIAL and (name not in records or (wrong and name == _EDITED)):
                wrong = _ESSENTIAL[name](file)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            return f"{name} cannot be read ({_line(error)})"
        if wrong:
            return f"{name} {wrong}"
    return None


def _differs(file: Path, size: int, checksum: str, stamp: list[int]) -> str | None:
    """Return how a file differs from its record, or None."""
    found = stamp_of(file)
    if found == stamp:
        return None
    if found[1] != size:
        return f"has {found[1]} bytes, not {size}"
    return None if crc32(file) == checksum else "is damaged: its checksum differs"


def read_status(file: Path) -> dict[str, Any]:
    """Return ``status.json`` without entries of a wrong type; ``{}`` if it cannot be read."""
    try:
        status = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(status, dict):
        return {}
    return {k: v for k, v in status.items() if k not in _STATUS or _STATUS[k](v)}


def read_metrics(file: Path) -> dict[str, Any]:
    """Return ``metrics.json``.

    Raises:
        UserError: it cannot be read, or is not what a run writes.
    """
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"'{file}' is not readable JSON ({error}).") from error
    if wrong := wrong_in_metrics(metrics):
        raise UserError(f"'{file}' is not of a run: {wrong}.")
    return metrics


def read_config(file: Path) -> dict[str, Any]:
    """Return ``config.yaml`` of a run, checked roughly.

    Raises:
        UserError: it cannot be read, or is not what a run writes.
    """
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise UserError(f"'{file}' is not of a run: it is no mapping.")
    wrong = [key for key, kind in _CONFIG.items() if not isinstance(content.get(key), kind)]
    if wrong:
        raise UserError(f"'{file}' is not of a run: '{wrong[0]}' is missing or of a wrong type.")
    return content


def wrong_config(file: Path) -> str | None:
    """Return what is wrong with a ``config.yaml``, or None."""
    return _reason(read_config, file)


def _wrong_metrics(file: Path) -> str | None:
    return _reason(read_metrics, file)


def _reason(read: Callable[[Path], Any], file: Path) -> str | None:
    try:
        read(file)
    except UserError as error:
        return str(error).removeprefix(f"'{file}' ").removesuffix(".")
    return None


def _wrong_codes(file: Path) -> str | None:
    import h5py

    with h5py.File(file, "r") as content:
        missing = {"query", "database"} - set(content)
    return "holds no codes of a run" if missing else None


_ESSENTIAL: dict[str, Callable[[Path], str | None]] = {
    "config.yaml": wrong_config, "metrics.json": _wrong_metrics, "codes.h5": _wrong_codes,
}  # fmt: skip
"""What is looked at without a record: file → what is wrong with it."""
_EDITED = "config.yaml"  # by users, say where a dataset has moved: another one is no damage
_CONFIG = {"method": str, "dataset": dict, "data": dict}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _are_records(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(entry, list) and len(entry) == 3 for entry in value.values()
    )


_STATUS: dict[str, Callable[[Any], bool]] = {
    "state": _is_text,
    "error": lambda value: value is None or isinstance(value, str),
    "seconds": lambda value: isinstance(value, int | float) and 0 <= value < math.inf,
    "once_s": lambda value: isinstance(value, int | float) and 0 <= value < math.inf,
    "attempts": _is_count,
    "failures": _is_count,
    "versions": _is_mapping,
    "files": _are_records,
}
