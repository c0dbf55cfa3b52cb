"""mAP of other repositories, by name, to compare with their published numbers.

The project's numbers are those of :mod:`common.metrics.report`. The definitions here differ
from them, and from each other, in what "mAP@k" cuts, in what a query without a relevant row
counts, and in distances; they rank explicitly, since some of them depend on the order of ties.
That order comes from an unstable sort in all of them; here it is by row number or explicit.

Codes are taken as they are, by inner products: an entry of 0 (``torch.sign(0)``) counts half a bit
and real values give real distances, as in those repositories. They sum in float32, this in float64.

>>> import numpy as np
>>> codes, labels = np.array([[1, 1], [1, -1], [-1, -1]]), np.array([0, 1, 0])
>>> compat_map("kalenforn", codes[:1], labels[:1], codes, labels, at=1)
1.0
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import torch
from torch import Tensor

from common.metrics.compat.average_precision import (
    average_precision_first_k,
    average_precision_in_top,
)
from common.metrics.compat.rankings import check_pairs
from utils.errors import UserError, unknown_name


@dataclasses.dataclass(frozen=True)
class Policy:
    """How a repository turns codes and labels into a mAP.

    Attributes:
        computes: what it does, in words; also which other repositories do the same.
        cut: what the k of mAP@k cuts. ``"relevant"``: the mean runs over the first k relevant
            rows, wherever they rank. ``"ranks"``: over the relevant rows at ranks 1..k, divided
            by their number. ``"slice"``: the same with k as the end of a Python slice, so that
            -1 leaves out the farthest row.
        unanswered: value of a query without a relevant row within the cut: ``"zero"``;
            ``"nan"``, which makes the mAP NaN; ``"skip"``, left out of the mean.
        distance: ``"inner"``, (K - a·b)/2 of the values as they are; ``"hamming"``, the same of
            their signs with sign(0) = 0; ``"cosine"``; ``"euclidean"``.
        zero_mean: the mean database row is subtracted from both sides first.
    """

    computes: str
    cut: Literal["relevant", "ranks", "slice"]
    unanswered: Literal["zero", "nan", "skip"]
    distance: Literal["inner", "hamming", "cosine", "euclidean"] = "inner"
    zero_mean: bool = False


_MATRIX = (
    "AP over the first k relevant rows, the ranking is not cut; one query without a relevant row "
    "makes the mAP NaN"
)
POLICIES = {
    "kalenforn": Policy(
        "clip-based-cross-modal-hash, calc_map_k, of its DCMHT, TwDH, DIMCH, UMoED and baseline: "
        f"{_MATRIX}",
        cut="relevant",
        unanswered="nan",
    ),
    "dchmt": Policy(
        f"DCHMT, calc_map_k_matrix, which its validation calls: {_MATRIX}; the loop version beside "
        "it is 'mith'",
        cut="relevant",
        unanswered="nan",
    ),
    "mith": Policy(
        "MITH, calc_map_k, also VTPH, DSPH, DNPH and the loop version of DCHMT: AP over the first "
        "k relevant rows, the ranking is not cut; a query without a relevant row counts 0",
        cut="relevant",
        unanswered="zero",
    ),
    "deephash": Policy(
        "DeepHash-pytorch, CalcTopMap, also PZSH: ranks 1..k, divided by the relevant rows among "
        "them; nothing found counts 0; k = -1, meant as 'all', leaves out the farthest row",
        cut="slice",
        unanswered="zero",
    ),
    "fire": Policy(
        "cisip-FIRe, calculate_mAP, also PIXEL: ranks 1..k, divided by the relevant rows among "
        "them; nothing found counts 0 ('skip' is its old_eval); distances of real values by "
        "choice",
        cut="ranks",
        unanswered="zero",
        distance="hamming",
    ),
}


def compat_map(
    policy: str | Policy,
    query_codes: Any,
    query_labels: Any,
    database_codes: Any,
    database_labels: Any,
    *,
    at: int | None = None,
    order: Any = None,
    memory_mb: float = 256,
) -> float:
    """Return mAP as a repository computes it.

    Args:
        policy: a name of :data:`POLICIES`; or a policy, for instance one with another distance:
            ``dataclasses.replace(POLICIES["fire"], distance="cosine")``.
        query_codes: [Q,K] of ±1, of 0 for an undecided bit, or of real values; bool is read as ±1.
        query_labels: [Q,C] of 0/1 (relevant = share a label) or class numbers [Q] (relevant =
            equal).
        database_codes: [N,K].
        database_labels: [N,C] or [N].
        at: k of mAP@k; None is the whole database.
        order: integers [Q,N], database rows from nearest to farthest, used instead of the stable
            order; not checked against the distances.
        memory_mb: bound on temporary memory in MiB, beside float64 copies of the codes; at least
            one query is treated at a time.

    Returns:
        The mean over queries; NaN where the policy says so, or where it skips all queries.

    Raises:
        UserError: an unknown policy, a cut that it does not have, or inputs that do not fit.
    """
    if not isinstance(policy, Policy) and policy not in POLICIES:
        raise unknown_name("compat policy", policy, tuple(POLICIES))
    rule = policy if isinstance(policy, Policy) else POLICIES[policy]
    check_cut(rule, at)
    pairs = check_pairs(
        query_codes, query_labels, database_codes, database_labels, rule.distance, rule.zero_mean
    )
    values = [
        precisions(rule, at, ranked, relevant)
        for ranked, relevant in pairs.ranked(order, memory_mb)
    ]
    return policy_mean(rule, torch.cat(values))


def check_cut(rule: Policy, at: int | None) -> None:
    """Refuse a k that a policy does not have.

    Raises:
        UserError: it says what is accepted.
    """
    if at is not None and at < 1 and not (rule.cut == "slice" and at == -1):
        raise UserError(
            f"mAP@k got k = {at}; a whole number of rows from 1 is accepted, or None for all"
            + (", or -1 for all but the farthest row." if rule.cut == "slice" else ".")
        )


def precisions(rule: Policy, at: int | None, ranked: Tensor, relevant: Tensor) -> Tensor:
    """Return AP float64 [q] of explicit rankings [q,N]; 0 for a query where no row counts."""
    if rule.cut == "relevant":
        return average_precision_first_k(ranked, relevant, at)
    return average_precision_in_top(ranked, relevant, ranked.shape[1] - 1 if at == -1 else at)


def policy_mean(rule: Policy, values: Tensor) -> float:
    """Return the mean of AP [Q] as a policy takes it: NaN where it says so, or skips all."""
    empty = values == 0  # AP is above 0 as soon as one relevant row counts
    if rule.unanswered == "skip":
        values = values[~empty]
    elif rule.unanswered == "nan" and bool(empty.any()):
        return math.nan
    return float(values.mean())
