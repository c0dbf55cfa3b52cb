"""Codes in files and arrays, and the metrics between them.

>>> import numpy as np
>>> from common.code_files import Stored, source_of
>>> source_of("mine", Stored(np.array([[1, -1, 1]]), np.array([4]))).read()
PackedRows(codes=array([[5]], dtype=uint8), bits=3, labels=array([4]), classes=None)
"""

from common.code_files.code_source import CodeSource, Stored, source_of
from common.code_files.compare import compare_files, compare_pair
from common.code_files.pairs import CodePair, open_mat, open_run
from common.code_files.readers import open_codes, read_array

__all__ = [
    "CodePair",
    "CodeSource",
    "Stored",
    "compare_files",
    "compare_pair",
    "open_codes",
    "open_mat",
    "open_run",
    "read_array",
    "source_of",
]
