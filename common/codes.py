"""Binary codes: from real values to ±1, and between ±1 in memory and packed bits on disk."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.errors import UserError


def sign(x: Tensor) -> Tensor:
    """Return ±1 in the shape and dtype of ``x``; zero becomes +1, where ``torch.sign`` gives 0.

    It has no gradient; a straight-through estimator belongs in a loss.

    >>> sign(torch.tensor([-0.5, 0.0, 2.0]))
    tensor([-1.,  1.,  1.])
    """
    return torch.where(x < 0, -1, 1).to(x.dtype)


def as_codes(array: Any, *, strict: bool = False) -> NDArray[np.int8]:
    """Return codes of ±1 as an int8 array of the same shape.

    Args:
        array: array or tensor of ±1; of 0/1 or bool (0 stands for -1); or of any other real
            values, of which the sign is taken, sign(0) = +1. An array of nothing but zeros and
            ones is read as 0/1.
        strict: refuse values other than ±1, 0 and 1.

    Raises:
        UserError: not numeric, NaN inside, unsigned integers other than 0/1 (packed bits), or
            under ``strict`` another value.

    >>> as_codes([[0, 1, 1]])
    array([[-1,  1,  1]], dtype=int8)
    >>> as_codes([[0.0, -0.3, 7.0]])
    array([[ 1, -1,  1]], dtype=int8)
    """
    return np.where(_positive(array, strict), np.int8(1), np.int8(-1))


def _positive(array: Any, strict: bool) -> NDArray[np.bool_]:
    """Return which bits are +1, or refuse the array as :func:`as_codes` says."""
    if isinstance(array, Tensor):
        array = array.detach().cpu()
        array = (array.float() if array.dtype == torch.bfloat16 else array).numpy()
    values = np.asarray(array)
    if values.dtype.kind not in "biuf":
        raise UserError(
            f"Codes are of type {values.dtype}; ±1, 0/1, bool or real values are accepted."
        )
    if values.dtype.kind == "b":
        return values
    positive = values > 0
    if np.array_equal(values, positive):  # nothing but zeros and ones
        return positive
    if values.dtype.kind == "u":
        raise UserError(
            f"Codes of type {values.dtype} hold values up to {values.max()}; unsigned integers are "
            "accepted as 0/1 only, and packed bits under the key 'packed' together with 'bits'."
        )
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise UserError(
            f"Codes hold {int(np.isnan(values).sum())} NaN; every value must be a number."
        )
    if strict and not np.isin(values, (-1, 0, 1)).all():
        strange = values[~np.isin(values, (-1, 0, 1))][0]
        raise UserError(f"Codes hold {strange}; under 'strict' only ±1, 0 and 1 are accepted.")
    return values >= 0


def pack_codes(codes: Any, *, strict: bool = False) -> NDArray[np.uint8]:
    """Return codes [N,K] packed as uint8 [N,ceil(K/8)], LSB first within each byte, +1 as bit 1.

    Bits beyond K in the last byte are 0. ``codes`` and ``strict`` are those of :func:`as_codes`.

    >>> pack_codes([[1, -1, -1, -1, -1, -1, -1, -1, 1]])
    array([[1, 1]], dtype=uint8)
    """
    return np.packbits(_positive(codes, strict), axis=-1, bitorder="little")


def unpack_codes(packed: Any, bits: int) -> NDArray[np.int8]:
    """Return the int8 codes [N,K] of ±1 that :func:`pack_codes` packed, K = ``bits``.

    Raises:
        UserError: ``packed`` is no uint8 [N,ceil(bits/8)] array.

    >>> unpack_codes(np.array([[5]], dtype=np.uint8), bits=3)
    array([[ 1, -1,  1]], dtype=int8)
    """
    values = np.asarray(packed)
    check_packed(values, bits)
    ones = np.unpackbits(values, axis=-1, count=bits, bitorder="little")  # [N,K]
    return np.where(ones == 1, np.int8(1), np.int8(-1))


def check_packed(values: Any, bits: int) -> None:
    """Refuse packed codes, in memory or in a file, that are not uint8 [N,⌈bits/8⌉]."""
    width = -(-bits // 8)
    if bits < 1 or values.dtype != np.uint8 or values.ndim != 2 or values.shape[1] != width:
        raise UserError(
            f"Packed codes of {bits} bits are a uint8 array [N,{max(1, width)}], but got "
            f"{values.dtype} {list(values.shape)}."
        )
