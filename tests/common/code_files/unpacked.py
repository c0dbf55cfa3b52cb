"""Codes and labels of a source as plain arrays."""

import numpy as np

from common.codes import unpack_codes


def codes_of(source):
    """Return int8 [N,K] of ±1."""
    return unpack_codes(source.packed_codes(), source.bits)


def labels_of(source):
    """Return bool [N,C] or class numbers int64 [N]."""
    rows = source.read()
    if rows.classes is None:
        return rows.labels
    return np.unpackbits(rows.labels, 1, rows.classes, "little").astype(bool)
