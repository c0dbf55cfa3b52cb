"""Checked inputs of a metric: codes of one length, labels of one kind, as many rows of both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from common.metrics.counting.dispatch import count_histograms
from common.metrics.histograms import Histograms
from common.metrics.labels import check_comparable
from common.metrics.packed import PackedRows, pack_rows
from utils.errors import UserError


def build_histograms(
    query_codes: Any,
    query_labels: Any,
    database_codes: Any,
    database_labels: Any,
    *,
    strict: bool = False,
    backend: str = "auto",
    device: torch.device | str | None = None,
    memory_mb: float = 256,
) -> Histograms:
    """Check codes and labels and return the histograms, from which every metric follows.

    The arguments are those of :func:`common.metrics.report.retrieval_report`.

    Raises:
        UserError: no rows, different numbers of bits or classes, labels of two kinds, rows
            without labels, or an unavailable device or back end.
    """
    if device is None and isinstance(query_codes, Tensor):
        device = query_codes.device
    query, database = pack_sides(
        query_codes, query_labels, database_codes, database_labels, strict=strict
    )
    return count_histograms(query, database, backend=backend, device=device, memory_mb=memory_mb)


def pack_sides(
    query_codes: Any,
    query_labels: Any,
    database_codes: Any,
    database_labels: Any,
    *,
    strict: bool = False,
) -> tuple[PackedRows, PackedRows]:
    """Check and pack query and database; an error names the side.

    Raises:
        UserError: as :func:`build_histograms`.
    """
    query = _packed("query", query_codes, query_labels, strict)
    database = _packed("database", database_codes, database_labels, strict)
    check_comparable((query.bits, database.bits), (query.classes, database.classes))
    return query, database


def _packed(side: str, codes: Any, labels: Any, strict: bool) -> PackedRows:
    try:
        return pack_rows(codes, labels, strict=strict)
    except UserError as error:
        raise UserError(f"In the {side}: {error}") from error
