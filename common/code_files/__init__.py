"""Codes in files and arrays, and the metrics between them.

>>> import numpy as np
>>> from common.code_files import Stored, source_of
>>> source_of("mine", Stored(np.array([[1, -1, 1]]), np.array([4]))).read()
PackedRows(codes=array([[5]], dtype=uint8), bits=3, labels=array([4]), classes=None)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.code_files.code_source import CodeSource, Labels, Stored, source_of
from common.code_files.compare import compare_files, compare_pair
from common.code_files.pairs import CodePair, open_mat, open_run
from common.code_files.readers import ACCEPTED, open_codes, read_array

__all__ = [
    "ACCEPTED",
    "CodePair",
    "CodeSource",
    "Stored",
    "compare_files",
    "compare_pair",
    "load_codes",
    "open_codes",
    "open_mat",
    "open_run",
    "read_array",
    "source_of",
]


def load_codes(path: str | Path) -> tuple[NDArray[np.int8], Labels]:
    """Return codes int8 [N,K] of ±1, and labels bool [N,C] or int64 [N], of a file.

    File formats and errors are those of :func:`open_codes`.
    """
    source = open_codes(path)
    return source.codes(), source.labels
