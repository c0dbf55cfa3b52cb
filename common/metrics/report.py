"""All metrics of one retrieval direction as a JSON-ready dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from common.distributed import gather_rows, local_share
from common.metrics.average_precision import (
    DENOMINATORS,
    average_precision,
    average_precision_at,
    mean_band,
)
from common.metrics.counting.dispatch import count_grades, count_histograms
from common.metrics.curves import (
    GAINS,
    Curve,
    curve_by_radius,
    curve_by_rank,
    log_ranks,
    mean_over_queries,
    ndcg_at,
    precision_within,
    r_precision,
)
from common.metrics.histograms import GradedHistograms, Histograms
from common.metrics.inputs import pack_sides
from common.metrics.packed import PackedRows
from utils.errors import UserError, unknown_name

_NO_RELEVANT = ("zero", "skip")
_HEADLINE_DENOMINATOR = "min"
_PRECISION_AT = (1, 10, 100, 1000)
_GAIN_IN_WORDS = {
    "binary": "1 for a relevant row",
    "linear": "g, the number of shared labels",
    "exponential": "2^g - 1 for g shared labels",
}


def retrieval_report(
    query_codes: Any,
    query_labels: Any,
    database_codes: Any,
    database_labels: Any,
    *,
    at: Sequence[str | int] = ("all",),
    precision_at: Sequence[int] | None = None,
    no_relevant: str = "zero",
    gain: str = "binary",
    strict: bool = False,
    backend: str = "auto",
    device: torch.device | str | None = None,
    memory_mb: float = 256,
) -> dict[str, Any]:
    """Return every metric of one retrieval direction, exact under ties.

    Args:
        query_codes: array or tensor [Q,K] of ±1, 0/1, bool or real values (sign is taken).
        query_labels: [Q,C] of 0/1 (relevant = share a label) or class numbers [Q] (relevant =
            equal).
        database_codes: [N,K].
        database_labels: [N,C] or [N].
        at: cuts of mAP and NDCG: ``"all"`` or numbers of rows; one beyond the database means all.
        precision_at: ranks of precision@N and recall@N; None = those of 1, 10, 100, 1000 that
            the database has. One beyond the database means its last rank.
        no_relevant: queries without a relevant row count 0 in every mean (``"zero"``) or are
            left out (``"skip"``).
        gain: of NDCG, see :func:`common.metrics.curves.ndcg_at`.
        strict: refuse values other than ±1, 0 and 1 instead of taking their sign.
        backend: of counting: ``"auto"``, ``"torch"`` or ``"numba"``; all give the same integers.
        device: where ``torch`` counts; None = where ``query_codes`` are.
        memory_mb: bound on temporary memory while counting, in MiB.

    Returns:
        The dictionary of :func:`report_histograms`.

    Raises:
        UserError: inputs that do not fit together, or an unknown option.

    >>> import numpy as np
    >>> report = retrieval_report(
    ...     np.array([[1, 1]]), np.array([0]), np.array([[1, 1], [-1, 1]]), np.array([0, 1]))
    >>> report["map"]["all"]
    {'expected': 1.0, 'worst': 1.0, 'best': 1.0}
    """
    _check_options(at, no_relevant, gain)  # a wrong option is refused before the work
    if device is None and isinstance(query_codes, Tensor):
        device = query_codes.device
    query, database = pack_sides(
        query_codes, query_labels, database_codes, database_labels, strict=strict
    )
    return report_packed(
        query, database, at=at, precision_at=precision_at, no_relevant=no_relevant, gain=gain,
        backend=backend, device=device, memory_mb=memory_mb,
    )  # fmt: skip


def report_packed(
    query: PackedRows,
    database: PackedRows | Iterable[PackedRows],
    *,
    at: Sequence[str | int] = ("all",),
    precision_at: Sequence[int] | None = None,
    no_relevant: str = "zero",
    gain: str = "binary",
    backend: str = "auto",
    device: torch.device | str | None = None,
    memory_mb: float = 256,
) -> dict[str, Any]:
    """Return the report of packed codes; the database may come in blocks, each read once.

    With several processes (``torch.distributed``) all get the same query and database, each counts
    a share of the queries, and each returns the whole report.

    Args and errors are those of :func:`retrieval_report`.
    """
    _check_options(at, no_relevant, gain)
    count = count_histograms if gain == "binary" else count_grades
    counted = count(
        query.select(local_share(len(query))), database, backend=backend, device=device,
        memory_mb=memory_mb,
    )  # fmt: skip
    gathered = type(counted)(*map(gather_rows, vars(counted).values()))
    return report_histograms(
        gathered, at=at, precision_at=precision_at, no_relevant=no_relevant, gain=gain
    )


def report_histograms(
    counted: Histograms | GradedHistograms,
    *,
    at: Sequence[str | int] = ("all",),
    precision_at: Sequence[int] | None = None,
    no_relevant: str = "zero",
    gain: str = "binary",
) -> dict[str, Any]:
    """Return the report of histograms.

    Returns:
        ``map``: per cut ``expected``, ``worst``, ``best`` over tie orders; for a number R also
        ``denominator`` (of these three) and ``by_denominator`` (all three definitions).
        ``precision_at``, ``recall_at``, ``ndcg``: by rank, as text keys. ``pr_radius``: lists
        over radius 0..K, pooled over pairs and, as ``*_macro``, averaged over queries.
        ``pr_rank``: lists over about 100 ranks. ``precision_radius2``, ``r_precision``. ``bits``,
        ``queries``, ``database``, ``queries_without_relevant``. ``beyond_database``: requested
        cuts and ranks above the number of rows; they mean all of it. All numbers are finite.

    Raises:
        UserError: an unknown option.
    """
    cuts = _check_options(at, no_relevant, gain)
    histograms = counted if isinstance(counted, Histograms) else counted.binary()
    queries, database = histograms.queries, histograms.database
    has_relevant = histograms.total_relevant > 0
    selected = histograms
    if no_relevant == "skip":
        counted, selected = counted.select(has_relevant), histograms.select(has_relevant)
    points = _points(precision_at, database)
    return {
        "map": {key: _map_entry(selected, cut) for key, cut in cuts.items()},
        "ndcg": {key: _mean(ndcg_at(counted, cut, gain)) for key, cut in cuts.items()},
        **_curves(selected, points, database),
        "precision_radius2": _mean(precision_within(selected, 2)),
        "r_precision": _mean(r_precision(selected)),
        "bits": histograms.bits,
        "queries": queries,
        "database": database,
        "queries_without_relevant": queries - int(has_relevant.sum()),
        "beyond_database": sorted(
            {rank for rank in (*cuts.values(), *points) if rank and rank > database}
        ),
    }


def _points(precision_at: Sequence[int] | None, database: int) -> list[int]:
    """Return the ranks of precision@N and recall@N."""
    if precision_at is None:
        return [rank for rank in _PRECISION_AT if rank <= database]
    if any(rank < 1 for rank in precision_at):
        raise UserError(f"precision_at is {list(precision_at)}; ranks of at least 1 are accepted.")
    return list(precision_at)


def _curves(histograms: Histograms, points: Sequence[int], database: int) -> dict[str, Any]:
    """Return precision and recall at the points, along the ranking and by radius."""
    ranks = log_ranks(database)
    both = curve_by_rank(histograms, [*(min(rank, database) for rank in points), *ranks])
    at_points, by_rank = (
        Curve(*(values[:, part] for values in both))
        for part in (slice(0, len(points)), slice(len(points), None))
    )
    micro, macro = curve_by_radius(histograms, "micro"), curve_by_radius(histograms, "macro")
    return {
        "precision_at": _by_rank(points, at_points.precision),
        "recall_at": _by_rank(points, at_points.recall),
        "pr_radius": {
            "radius": list(range(histograms.bits + 1)),
            "precision": micro.precision.tolist(),
            "recall": micro.recall.tolist(),
            "precision_macro": macro.precision.tolist(),
            "recall_macro": macro.recall.tolist(),
        },
        "pr_rank": {
            "rank": ranks,
            "precision": mean_over_queries(by_rank.precision).tolist(),
            "recall": mean_over_queries(by_rank.recall).tolist(),
        },
    }


def _check_options(at: Sequence[str | int], no_relevant: str, gain: str) -> dict[str, int | None]:
    """Return the cuts, or refuse an unknown option."""
    if no_relevant not in _NO_RELEVANT:
        raise unknown_name("policy for queries without a relevant row", no_relevant, _NO_RELEVANT)
    if gain not in GAINS:
        raise unknown_name("gain of NDCG", gain, tuple(GAINS))
    return parse_cuts(at)


def protocol(no_relevant: str = "zero", gain: str = "binary") -> dict[str, Any]:
    """Return the definitions of a report's numbers as texts."""
    return {
        "relevance": "share at least one label (class numbers: equal)",
        "ranking": "ascending Hamming distance; code = sign of the real value, sign(0) = +1",
        "ties": "expected over all orders of rows at equal distance; worst and best over them",
        "no_relevant": no_relevant,
        "map_denominator": {"all": "total", "at": _HEADLINE_DENOMINATOR},
        "map_denominators": {
            "retrieved": "relevant rows at ranks 1..R",
            "min": "lesser of R and all relevant rows",
            "total": "all relevant rows",
        },
        "ndcg": f"gain {_GAIN_IN_WORDS[gain]}, discount 1/log2(1 + rank)",
        "beyond_database": "a cut or rank beyond the database means all of it",
        "empty_radius_precision": 0,
    }


def parse_cuts(at: Sequence[str | int]) -> dict[str, int | None]:
    """Return cuts by their text: ``"all"`` as None, numbers of rows as integers.

    Raises:
        UserError: anything else, or nothing.

    >>> parse_cuts(["all", "1000"])
    {'all': None, '1000': 1000}
    """
    items = [at] if isinstance(at, str | int) else list(at)
    cuts: dict[str, int | None] = {}
    for text in (str(item).strip() for item in items):
        if text == "all":
            cuts["all"] = None
        elif text.isascii() and text.isdigit() and int(text) > 0:
            cuts[str(int(text))] = int(text)
        else:
            raise UserError(
                f"A cut of mAP is '{text}'; 'all' or a whole number above 0 is accepted."
            )
    if not cuts:
        raise UserError("No cut of mAP is given; 'all' or whole numbers above 0 are accepted.")
    return cuts


def _map_entry(histograms: Histograms, cut: int | None) -> dict[str, Any]:
    """Return the entry of one cut: the tie band, and for AP@R that of every denominator."""
    if cut is None:
        return mean_band(average_precision(histograms))
    bands = {name: mean_band(average_precision_at(histograms, cut, name)) for name in DENOMINATORS}
    headline = bands[_HEADLINE_DENOMINATOR]
    return {**headline, "denominator": _HEADLINE_DENOMINATOR, "by_denominator": bands}


def _mean(values: Tensor) -> float:
    """Return the mean over queries as a number, 0 without any."""
    return float(mean_over_queries(values))


def _by_rank(ranks: Sequence[int], values: Tensor) -> dict[str, float]:
    """Return the means over queries of [Q,P] values under the ranks as text."""
    means = mean_over_queries(values).tolist()
    return {str(int(rank)): value for rank, value in zip(ranks, means, strict=True)}
