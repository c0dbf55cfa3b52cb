"""Binary FAISS indexes of packed codes, for top-k search and for serving.

FAISS counts differing bits of whole bytes. Codes whose length is no multiple of 8 are padded
with zero bits, on both sides, which changes no distance; the index then has ⌈K/8⌉·8 bits.

Kinds: ``flat`` compares with every row and is exact. For very many rows there are ``ivf``, which
searches the nearest of about √N cells of a k-means clustering, and ``hnsw``, which walks a graph of
neighbours and is slow to build. Both may miss a near row, ``hnsw`` more so where many codes are
equal, as short codes are; the distances that they return are exact.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.codes import pack_codes, unpack_codes
from utils.errors import UserError, unknown_name
from utils.files import atomic_path

if TYPE_CHECKING:
    import faiss

KINDS = ("flat", "ivf", "hnsw")
_ROWS_PER_CELL = 39  # below, FAISS calls its clustering unsound
_PROBED = 8  # one cell in so many is searched
_NEIGHBOURS = 32  # edges of a node of the graph
_CANDIDATES = 64  # kept while the graph is built, and at least while it is searched


def build_index(codes: Any, kind: str = "flat", bits: int | None = None) -> faiss.IndexBinary:
    """Return an index of codes; its row numbers are those of ``codes``.

    Args:
        codes: array or tensor [N,K] that :func:`common.codes.as_codes` accepts; or, with ``bits``,
            packed codes uint8 [N,⌈K/8⌉], LSB first.
        kind: one of ``KINDS``.
        bits: K, when ``codes`` are packed.

    Raises:
        UserError: an unknown kind, or arrays that are no codes.

    >>> index = build_index([[1, 1, -1], [1, -1, -1]])
    >>> [array.tolist() for array in search(index, [[1, -1, 1]], k=2)]
    [[[1, 2]], [[1, 0]]]
    """
    import faiss

    if kind not in KINDS:
        raise unknown_name("kind of index", kind, KINDS)
    packed = _packed(codes, bits)
    rows, width = packed.shape[0], packed.shape[1] * 8
    index: faiss.IndexBinary
    if kind == "flat":
        index = faiss.IndexBinaryFlat(width)
    elif kind == "ivf":
        cells = max(1, min(round(math.sqrt(rows)), rows // _ROWS_PER_CELL))
        index = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(width), width, cells)
        index.nprobe = -(-cells // _PROBED)
        index.cp.min_points_per_centroid = 1  # no warning about a handful of rows in one cell
        index.train(packed)
    else:
        index = faiss.IndexBinaryHNSW(width, _NEIGHBOURS)
        index.hnsw.efConstruction = index.hnsw.efSearch = _CANDIDATES
    index.add(packed)
    return index


def search(
    index: faiss.IndexBinary, queries: Any, k: int, bits: int | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the k nearest rows of every query, nearest first.

    Args:
        index: of :func:`build_index` or :func:`load_index`.
        queries: Q codes, in a form that :func:`build_index` accepts.
        k: number of rows; more than the index has means all of them.
        bits: K, when ``queries`` are packed.

    Returns:
        Hamming distances int32 [Q,k] and row numbers int64 [Q,k]. Rows at equal distance come in
        any order. Where ``ivf`` finds fewer than k rows, the last are -1.

    Raises:
        UserError: k below 1, or queries of another length.
    """
    packed = _packed(queries, bits)
    if k < 1:
        raise UserError(f"k is {k}; at least 1 row must be asked for.")
    if packed.shape[1] * 8 != index.d:
        raise UserError(
            f"Queries have {bits or np.shape(queries)[1]} bits, {packed.shape[1]} bytes, and the "
            f"codes in the index {index.d // 8} bytes; both need the same number of bits."
        )
    distances, rows = index.search(packed, min(k, index.ntotal))
    return distances, rows


def save_index(index: faiss.IndexBinary, path: str | Path) -> None:
    """Write an index atomically to a file for ``faiss.read_index_binary``.

    Raises:
        UserError: it cannot be written there.
    """
    import faiss

    with atomic_path(Path(path)) as temporary:
        try:
            faiss.write_index_binary(index, str(temporary))
        except RuntimeError as error:
            raise UserError(
                f"Cannot write '{path}': FAISS failed to, as on a full disk; free some space or "
                "choose another folder."
            ) from error


def load_index(path: str | Path) -> faiss.IndexBinary:
    """Return the index in a file.

    Raises:
        UserError: no such file, or none of a binary index.
    """
    import faiss

    if not Path(path).is_file():
        raise UserError(f"'{path}' is no file; give one that export or save_index has written.")
    try:
        return faiss.read_index_binary(str(path))
    except (RuntimeError, MemoryError) as error:
        raise UserError(
            f"'{path}' is not a binary index of FAISS, or it is cut short; write it again with "
            "export or save_index."
        ) from error


def _packed(codes: Any, bits: int | None) -> NDArray[np.uint8]:
    """Return codes as contiguous packed bytes [N,⌈K/8⌉], the bits beyond K zero."""
    values = unpack_codes(codes, bits) if bits is not None else codes  # checks, clears the tail
    packed = pack_codes(values)
    if packed.ndim != 2 or 0 in packed.shape:
        raise UserError(
            f"Codes have shape {list(np.shape(values))}; [N,K] with N and K above 0 is needed."
        )
    return np.ascontiguousarray(packed)
