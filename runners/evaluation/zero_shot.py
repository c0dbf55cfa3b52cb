"""Zero-shot retrieval: how well classes that training never showed are retrieved.

Three measures of the same codes, at every cut, beside the ordinary report:

``all_classes``
    Queries of unseen classes, database of seen and unseen ones: the papers' protocol.
``unseen_only``
    The same queries, the database rows of unseen classes alone.
``generalised``
    Queries of unseen and of seen classes against one database of both, and the harmonic mean
    2su/(s + u) of the two mAPs, which one of them alone cannot lift. Where the split has no query
    of a seen class, some are drawn from database rows that were not trained on: for each class as
    many as an unseen class has on average, at most a tenth of them. They leave the
    database, for the unseen queries as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from common.code_files.run_codes import CodeSet
from runners.evaluation.measure import count_directions, report_counted

CUTS: tuple[str | int, ...] = ("all", 5000)
DRAW_SEED = 0


def zero_shot_report(
    query: CodeSet, database: CodeSet, directions: Sequence[str], *,
    seen_classes: Sequence[int], trained_rows: np.ndarray, at: Sequence[str | int] = (),
    no_relevant: str = "zero", device: torch.device | str | None = None,
) -> dict[str, Any] | None:  # fmt: skip
    """Return the three measures for every direction, or None where nothing is zero-shot.

    That is where every query is of a seen class. ``seen_classes`` are those of the C that training
    rows carry or may carry, ``trained_rows`` the dataset's rows that were trained or selected on,
    ``at`` cuts of mAP beside :data:`CUTS`.

    Returns:
        ``seen_classes``, ``rows`` (how many of each kind), ``seen_queries`` (where they come from)
        and ``directions``: direction → measure → cut → expected, worst, best.
    """
    unseen = np.setdiff1d(np.arange(query.labels.shape[1]), np.asarray(seen_classes, np.int64))
    query_unseen, database_unseen = _carries(query, unseen), _carries(database, unseen)
    if not query_unseen.any():
        return None
    unseen_queries = _part(query, query_unseen)
    seen_queries, rest, source = _generalised(query, database, unseen, trained_rows)
    cuts = tuple(dict.fromkeys((*at, *CUTS)))

    def measure(queries: CodeSet, rows: CodeSet) -> dict[str, Any]:
        if not len(queries.rows) or not len(rows.rows):
            return {}
        counted = count_directions(queries, rows, directions, device=device)
        reports = report_counted(counted, at=cuts, no_relevant=no_relevant)
        return {direction: report["map"] for direction, report in reports.items()}

    standard = measure(unseen_queries, database)
    alone = measure(unseen_queries, _part(database, database_unseen))
    mixed_unseen, mixed_seen = measure(unseen_queries, rest), measure(seen_queries, rest)
    by_direction: dict[str, Any] = {d: {"all_classes": standard[d]} for d in directions}
    for direction, measures in by_direction.items():
        if alone:
            measures["unseen_only"] = alone[direction]
        if mixed_unseen and mixed_seen:
            both = {"unseen": mixed_unseen[direction], "seen": mixed_seen[direction]}
            measures["generalised"] = {**both, "harmonic": _harmonic(**both)}
    return {
        "seen_classes": [int(c) for c in seen_classes],
        "rows": {
            "unseen_queries": len(unseen_queries.rows), "seen_queries": len(seen_queries.rows),
            "database": len(database.rows), "unseen_database": int(database_unseen.sum()),
            "generalised_database": len(rest.rows),
        },
        "seen_queries": source,
        "directions": by_direction,
    }  # fmt: skip


def headline(report: dict[str, Any]) -> str:
    """Return the main numbers in one line for each direction."""
    lines = []
    for direction, measures in report["directions"].items():
        parts = [f"all classes {measures['all_classes']['all']['expected']:.4f}"]
        if "unseen_only" in measures:
            parts.append(f"unseen only {measures['unseen_only']['all']['expected']:.4f}")
        if "generalised" in measures:
            mixed = measures["generalised"]
            values = " / ".join(f"{mixed[k]['all']['expected']:.4f}" for k in ("seen", "unseen"))
            parts.append(f"seen / unseen {values}, harmonic {mixed['harmonic']['all']:.4f}")
        lines.append(f"zero-shot {direction} mAP@all: {', '.join(parts)}")
    return "\n".join(lines)


def _generalised(
    query: CodeSet, database: CodeSet, unseen: np.ndarray, trained_rows: np.ndarray
) -> tuple[CodeSet, CodeSet, str]:
    """Return queries of seen classes, the database without them, and where they come from."""
    query_unseen = _carries(query, unseen)
    if not query_unseen.all():
        return _part(query, ~query_unseen), database, "queries of the split"
    per_class = max(1, round(len(query.rows) / max(1, int(query.labels.any(0).sum()))))
    free = ~_carries(database, unseen) & ~np.isin(database.rows, trained_rows)
    order = np.random.RandomState(DRAW_SEED).permutation(len(free))
    drawn = np.zeros(len(free), dtype=bool)
    for c in np.setdiff1d(np.arange(database.labels.shape[1]), unseen):
        of_class = order[(database.labels[order, c] > 0) & free[order] & ~drawn[order]]
        tenth = max(1, len(of_class) // 10) if len(of_class) > 1 else 0
        drawn[of_class[: min(per_class, tenth)]] = True
    source = (
        f"{int(drawn.sum())} database rows of seen classes that were not trained on, up to "
        f"{per_class} for each class, seed {DRAW_SEED}"
    )
    return _part(database, drawn), _part(database, ~drawn), source


def _carries(codes: CodeSet, classes: np.ndarray) -> np.ndarray:
    """Return for every row whether it carries one of ``classes``, bool [N]."""
    return np.asarray((codes.labels[:, classes] > 0).any(1))


def _part(codes: CodeSet, mask: np.ndarray) -> CodeSet:
    """Return the rows where ``mask`` is True."""
    values = {modality: array[mask] for modality, array in codes.codes.items()}
    return CodeSet(values, codes.labels[mask], codes.rows[mask])


def _harmonic(unseen: dict[str, Any], seen: dict[str, Any]) -> dict[str, float]:
    """Return cut → harmonic mean of two expected mAPs, 0 where both are."""
    means = {}
    for cut, band in unseen.items():
        u, s = band["expected"], seen[cut]["expected"]
        means[cut] = 2 * u * s / (u + s) if u + s else 0.0
    return means
