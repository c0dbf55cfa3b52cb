"""A tensor in a file that somebody pickled, read as data: nothing in it is executed.

``torch.save`` is read by PyTorch's restricted reader, ``pickle.dump`` of a tensor or an array by
one that knows only the functions which such files need to put numbers together.
"""

from __future__ import annotations

import collections
import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError
from utils.files import check_plain_file


def read_tensor(path: Path) -> Tensor:
    """Return the tensor of numbers in ``path``, on the CPU.

    Raises:
        UserError: no such file, another content than one tensor or array, or one that asks for
            code.
    """
    check_plain_file(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror}).") from error
    try:
        content = _restricted(data)
    except Exception as error:  # arbitrary bytes make either reader fail in any way
        raise UserError(
            f"'{path}' is not a tensor that torch.save or pickle wrote, or asks for more than "
            f"numbers ({_reason(error)}); nothing in it is executed: write it anew with "
            "torch.save(tensor, FILE)."
        ) from error
    if isinstance(content, np.ndarray) and content.dtype.kind in "biuf":
        content = torch.from_numpy(np.ascontiguousarray(content))
    if not isinstance(content, Tensor) or content.is_sparse or content.is_complex():
        raise UserError(f"'{path}' holds a {type(content).__name__}; one tensor is needed.")
    return content.detach()


def _restricted(data: bytes) -> Any:
    """Return what the file holds, by PyTorch's reader or by :class:`_Reader`."""
    try:
        return _from_torch(data)
    except Exception:  # a plain pickle, which PyTorch's reader does not know
        if data[:2] == b"PK":
            raise
        return _Reader(io.BytesIO(data)).load()


def _from_torch(data: bytes) -> Any:
    with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(_ARRAYS):
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as old pickles state them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding}")
    return text.encode("latin1")


_rebuild_array: Any = np.empty(0).__reduce__()[0]
_ARRAYS: list[Any] = [
    (_rebuild_array, "numpy._core.multiarray._reconstruct"),
    (_rebuild_array, "numpy.core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    *{type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")},
]
_KNOWN: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
    "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
    "torch.storage._load_from_bytes": _from_torch,
    "collections.OrderedDict": collections.OrderedDict,
    "_codecs.encode": _encode,
    "numpy.core.multiarray._reconstruct": _rebuild_array,
    "numpy._core.multiarray._reconstruct": _rebuild_array,
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
}


class _Reader(pickle.Unpickler):
    """An unpickler of tensors and arrays alone."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a function of :data:`_KNOWN`; refuse every other."""
        if f"{module}.{name}" not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _KNOWN[f"{module}.{name}"]


def _reason(error: Exception) -> str:
    """Return the first line of an error without what it advises."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].split(". ")[0].rstrip(".")[:120]
