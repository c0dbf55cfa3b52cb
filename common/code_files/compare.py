"""Metrics between codes in files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.code_files.code_source import CodeSource
from common.code_files.pairs import CodePair
from common.code_files.readers import open_codes
from common.directions import sides, usual_directions
from common.metrics.packed import PackedRows
from common.metrics.report import parse_cuts, protocol, report_packed
from common.metrics.semantic import semantic_means
from utils.errors import UserError
from utils.hdf5_file import MOST_CHUNK_MB

Sides = dict[str, tuple[CodeSource, CodeSource]]


def compare_files(
    query: str | Path,
    database: str | Path,
    at: Sequence[str | int] = ("all",),
    *,
    query_labels: str | Path | None = None,
    database_labels: str | Path | None = None,
    strict: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Return the metrics of query codes against database codes, as in a run's ``metrics.json``.

    Args:
        query: file of the query, see :func:`common.code_files.open_codes`.
        database: file of the database; one that takes more than ``memory_mb`` is read in blocks.
        at: cuts of mAP, ``"all"`` or numbers of rows.
        query_labels: an npy of labels, in place of those in ``query``.
        database_labels: the same for ``database``.
        strict: refuse codes other than ±1, 0 and 1 instead of taking their sign.
        options: ``similarity`` of classes [C,C] for ``semantic_ndcg``, see
            :func:`common.metrics.semantic_ndcg`; ``precision_at``, ``no_relevant``, ``device``,
            ``memory_mb`` and the other arguments of :func:`common.metrics.report.report_packed`.

    Returns:
        ``protocol``, ``split_hash`` (None: files have no split), ``directions`` with the single
        direction ``q2d``, and ``timing`` with ``time_s``, the seconds of the computation (and of
        reading, where that is done in blocks). A direction's report also has ``notes``: sentences
        on how the values in the files were read.

    Raises:
        UserError: a file that cannot be read, two that do not fit together, or a wrong option.
    """
    memory_mb = options.get("memory_mb", MOST_CHUNK_MB)
    query_side = open_codes(query, query_labels, strict=strict, memory_mb=memory_mb)
    database_side = open_codes(database, database_labels, strict=strict, memory_mb=memory_mb)
    return _result({"q2d": (query_side, database_side)}, None, at=at, **options)


def compare_pair(
    pair: CodePair,
    directions: Sequence[str] | None = None,
    at: Sequence[str | int] = ("all",),
    **options: Any,
) -> dict[str, Any]:
    """Return the metrics of a file that holds both sides, in the layout of :func:`compare_files`.

    Args:
        pair: of :func:`open_mat` or :func:`open_run`.
        directions: such as ``["i2t", "t2i"]``; None for all across modalities, else within one.
        at: cuts of mAP.
        options: as in :func:`compare_files`.

    Raises:
        UserError: a direction that is unknown or whose codes the file lacks, sides that do not
            fit together, or a wrong option.
    """
    chosen = usual_directions(pair.query, pair.database) if directions is None else directions
    measured: Sides = {}
    for direction in chosen:
        query_modality, database_modality = sides(direction)
        if query_modality not in pair.query or database_modality not in pair.database:
            raise UserError(
                f"'{pair.name}' holds query codes of {' and '.join(pair.query)} and database codes "
                f"of {' and '.join(pair.database)}, so '{direction}' cannot be measured."
            )
        measured[direction] = pair.query[query_modality], pair.database[database_modality]
    return _result(measured, pair.split_hash, at=at, **options)


def _result(
    measured: Sides,
    split_hash: str | None,
    *,
    no_relevant: str = "zero",
    gain: str = "binary",
    memory_mb: float = 256,
    similarity: Any = None,
    **options: Any,
) -> dict[str, Any]:
    """Return the result over all directions."""
    reports, seconds = {}, 0.0
    for direction, (query, database) in measured.items():
        queries, fits = query.read(), database.packed_bytes <= memory_mb * 2**20
        rows = database.read() if fits else database.blocks()
        start = time.perf_counter()
        try:
            report = report_packed(
                queries, rows, no_relevant=no_relevant, gain=gain, memory_mb=memory_mb, **options
            )
            if similarity is not None:
                in_memory = rows if isinstance(rows, PackedRows) else database.read()
                report["semantic_ndcg"] = semantic_means(
                    queries, in_memory, similarity, parse_cuts(options["at"]), memory_mb=memory_mb
                )
        except UserError as error:
            raise UserError(f"'{query.name}' against '{database.name}': {error}") from error
        seconds += time.perf_counter() - start
        reports[direction] = {**report, "notes": [*query.notes, *database.notes]}
    return {
        "protocol": protocol(no_relevant, gain),
        "split_hash": split_hash,
        "directions": reports,
        "timing": {"time_s": seconds},
    }
