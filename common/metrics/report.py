"""Everything about one retrieval direction as one JSON-ready dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from common.metrics.average_precision import (
    DENOMINATORS,
    average_precision,
    average_precision_at,
    mean_band,
)
from common.metrics.curves import (
    curve_by_radius,
    curve_by_rank,
    log_ranks,
    mean_over_queries,
    ndcg_at,
    precision_within,
)
from common.metrics.histograms import Histograms
from common.metrics.inputs import build_histograms
from utils.errors import UserError, unknown_name

NO_RELEVANT = ("zero", "skip")
HEADLINE_DENOMINATOR = "min"
_PRECISION_AT = (1, 10, 100, 1000)


def retrieval_report(
    query_codes: Any,
    query_labels: Any,
    database_codes: Any,
    database_labels: Any,
    *,
    at: Sequence[str | int] = ("all",),
    precision_at: Sequence[int] | None = None,
    no_relevant: str = "zero",
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
        at: cuts of mAP: ``"all"`` or numbers of rows.
        precision_at: ranks of precision@N and recall@N; None = those of 1, 10, 100, 1000 that
            the database has.
        no_relevant: queries without a relevant row count 0 in every mean (``"zero"``) or are
            left out (``"skip"``).
        device: where distances are counted; None = where ``query_codes`` are.
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
    parse_cuts(at)  # a wrong option is refused before the work
    histograms = build_histograms(
        query_codes,
        query_labels,
        database_codes,
        database_labels,
        device=device,
        memory_mb=memory_mb,
    )
    return report_histograms(histograms, at=at, precision_at=precision_at, no_relevant=no_relevant)


def report_histograms(
    histograms: Histograms,
    *,
    at: Sequence[str | int] = ("all",),
    precision_at: Sequence[int] | None = None,
    no_relevant: str = "zero",
) -> dict[str, Any]:
    """Return the report of histograms, from whichever back end they come.

    Returns:
        ``map``: per cut ``expected``, ``worst``, ``best`` over tie orders; for a number R also
        ``denominator`` (of these three) and ``by_denominator`` (all three definitions).
        ``precision_at``, ``recall_at``, ``ndcg``: by rank, as text keys. ``pr_radius``: lists
        over radius 0..K, pooled over pairs and, as ``*_macro``, averaged over queries.
        ``pr_rank``: lists over about 100 ranks. ``precision_radius2``. ``bits``, ``queries``,
        ``database``, ``queries_without_relevant``. All numbers are finite.

    Raises:
        UserError: an unknown option, or a rank that the database does not have.
    """
    cuts = parse_cuts(at)
    if no_relevant not in NO_RELEVANT:
        raise unknown_name("policy for queries without a relevant row", no_relevant, NO_RELEVANT)
    queries, database = histograms.queries, histograms.database
    has_relevant = histograms.total_relevant > 0
    kept = histograms.select(has_relevant) if no_relevant == "skip" else histograms
    if precision_at is None:
        precision_at = [rank for rank in _PRECISION_AT if rank <= database]
    elif not all(1 <= rank <= database for rank in precision_at):
        raise UserError(
            f"precision_at is {list(precision_at)}; ranks from 1 to {database}, the rows of the "
            "database, are accepted."
        )
    ranks = log_ranks(database)
    points, by_rank = curve_by_rank(kept, precision_at), curve_by_rank(kept, ranks)
    micro, macro = curve_by_radius(kept, "micro"), curve_by_radius(kept, "macro")
    return {
        "map": {key: _map_entry(kept, cut) for key, cut in cuts.items()},
        "ndcg": {key: _mean(ndcg_at(kept, cut)) for key, cut in cuts.items()},
        "precision_at": _by_rank(precision_at, points.precision),
        "recall_at": _by_rank(precision_at, points.recall),
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
        "precision_radius2": _mean(precision_within(kept, 2)),
        "bits": histograms.bits,
        "queries": queries,
        "database": database,
        "queries_without_relevant": queries - int(has_relevant.sum()),
    }


def protocol(no_relevant: str = "zero") -> dict[str, Any]:
    """Return, in words, the definitions behind the numbers of a report."""
    return {
        "relevance": "share at least one label (class numbers: equal)",
        "ranking": "ascending Hamming distance; code = sign of the real value, sign(0) = +1",
        "ties": "expected over all orders of rows at equal distance; worst and best over them",
        "no_relevant": no_relevant,
        "map_denominator": {"all": "total", "at": HEADLINE_DENOMINATOR},
        "map_denominators": {
            "retrieved": "relevant rows at ranks 1..R",
            "min": "lesser of R and all relevant rows",
            "total": "all relevant rows",
        },
        "ndcg": "gain 1 for a relevant row, discount 1/log2(1 + rank)",
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
    headline = bands[HEADLINE_DENOMINATOR]
    return {**headline, "denominator": HEADLINE_DENOMINATOR, "by_denominator": bands}


def _mean(values: Tensor) -> float:
    """Return the mean over queries as a number, 0 without any."""
    return float(mean_over_queries(values))


def _by_rank(ranks: Sequence[int], values: Tensor) -> dict[str, float]:
    """Return the means over queries of [Q,P] values under the ranks as text."""
    means = mean_over_queries(values).tolist()
    return {str(int(rank)): value for rank, value in zip(ranks, means, strict=True)}
