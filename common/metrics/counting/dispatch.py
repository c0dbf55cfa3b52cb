"""The choice of a counting back end, and counting over blocks of a database.

Back ends: ``torch`` (:mod:`common.metrics.counting.torch_backend`) works on any device; ``numba``
(:mod:`common.metrics.counting.numba_backend`) is compiled for the CPU and uses all its cores. They
agree to the last integer. A fused GPU kernel is not among them: there was no GPU to verify one on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch

from common.metrics.counting import torch_backend
from common.metrics.histograms import GradedHistograms, Histograms
from common.metrics.labels import check_comparable
from common.metrics.packed import PackedRows
from utils.errors import UserError, unknown_name

BACKENDS = ("auto", "torch", "numba")
WORTH_COMPILED = 20_000_000  # pairs; below, loading the compiled code takes longer than counting


def count_histograms(
    query: PackedRows,
    database: PackedRows | Iterable[PackedRows],
    *,
    backend: str = "auto",
    device: torch.device | str | None = None,
    memory_mb: float = 256,
) -> Histograms:
    """Count, for every query, database rows and relevant database rows at every distance.

    Exact: the same integers from every back end, device, block size and memory bound.

    Args:
        query: the queries.
        database: the rows searched, at once or in blocks that are read one after the other; labels
            of the same kind. Relevant: shares a label (class numbers: equal).
        backend: one of ``BACKENDS``; ``"auto"`` takes ``torch`` on a GPU and for small work on
            the CPU, ``numba`` otherwise.
        device: where ``torch`` counts; None = the CPU.
        memory_mb: bound on the temporary memory in MiB, beside inputs and the result.

    Returns:
        :class:`Histograms` on the CPU.

    Raises:
        UserError: an unknown or unfit back end, an unavailable device, codes or labels that
            do not fit together, or a database without a row.

    >>> from common.metrics import pack_rows
    >>> h = count_histograms(
    ...     pack_rows([[1, 1]], [3]), pack_rows([[1, 1], [1, -1], [-1, 1]], [3, 3, 0]))
    >>> h.rows, h.relevant
    (tensor([[1, 2, 0]]), tensor([[1, 1, 0]]))
    """
    return _count(query, database, 2, backend, device, memory_mb).binary()


def count_grades(
    query: PackedRows,
    database: PackedRows | Iterable[PackedRows],
    *,
    backend: str = "auto",
    device: torch.device | str | None = None,
    memory_mb: float = 256,
) -> GradedHistograms:
    """Count database rows by distance and by the number of labels shared with the query.

    Arguments and errors are those of :func:`count_histograms`. Class numbers give grades 0 and 1.
    """
    levels = 2
    if query.classes is not None:
        most = np.unpackbits(query.labels.astype(np.uint8), axis=1).sum(1, dtype=np.int64).max()
        levels = max(2, int(most) + 1)
    return _count(query, database, levels, backend, device, memory_mb)


def _count(
    query: PackedRows,
    database: PackedRows | Iterable[PackedRows],
    levels: int,
    backend: str,
    device: torch.device | str | None,
    memory_mb: float,
) -> GradedHistograms:
    target = _checked_device(device)
    if not 0 < memory_mb < math.inf:
        raise UserError(f"memory_mb is {memory_mb}; a number of MiB above 0 is needed.")
    if backend not in BACKENDS:
        raise unknown_name("back end", backend, BACKENDS)
    if backend == "numba" and target.type != "cpu":
        raise UserError(f"Back end 'numba' counts on the CPU, not on '{target}'; choose 'torch'.")
    in_memory = isinstance(database, PackedRows)
    counts = np.zeros((len(query), (query.bits + 1) * levels), np.int64)
    rows = 0
    for block in (database,) if isinstance(database, PackedRows) else database:
        check_comparable((query.bits, block.bits), (query.classes, block.classes))
        rows += len(block)
        worth_it = not in_memory or len(query) * len(block) >= WORTH_COMPILED
        if backend == "numba" or (backend == "auto" and target.type == "cpu" and worth_it):
            from common.metrics.counting import numba_backend

            numba_backend.count(query, block, levels, counts, memory_mb=memory_mb)
        else:
            torch_backend.count(query, block, levels, counts, device=target, memory_mb=memory_mb)
    if not rows:
        raise UserError("The database has no rows; at least one is needed.")
    return GradedHistograms(torch.from_numpy(counts).unflatten(1, (-1, levels)))


def _checked_device(device: torch.device | str | None) -> torch.device:
    """Return the device, or refuse one that torch cannot use here."""
    try:
        torch.empty(1, device=device or "cpu").sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"Device '{device}' cannot be used here; choose 'cpu' or a device that torch lists."
        ) from error
    return torch.device(device or "cpu")
