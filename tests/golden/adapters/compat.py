"""The mAPs and curves of other repositories, by the policies of ``common.metrics.compat.policies``.

Where rows tie, the recorded order was that of an unstable sort, which no other machine has to
repeat. Then the recorded number must lie between the values of the worst and of the best order,
as the recordings' README has it; without ties the two are equal and the comparison is exact. What
was recorded of the stable order is compared exactly.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.metrics import average_precision_at, build_histograms
from common.metrics.compat.curves import (
    dchmt_curve_by_radius,
    dchmt_precision_within,
    dchmt_topn_precision,
    deephash_curve,
    deephash_precision_recall,
)
from common.metrics.compat.policies import POLICIES, Policy, compat_map
from common.metrics.compat.stable_order import stable_order
from common.metrics.curves import mean_over_queries
from common.pairwise import hamming_distance, share_label
from tests.golden.harness import Case, GoldenError, adapter

Sides = tuple[Tensor, Tensor, Tensor, Tensor]  # codes and labels of the query, of the database

RTOL_SUM = 1e-6  # the cross-modal calculators and VTPH's accumulate in float32
EUCLIDEAN_AT = 10  # R of ``out_fire_euclid``: in the recordings' README, not in the file


def cross_modal_sides(case: Case, query_label: str = "in_query_L") -> Sides:
    """Return the inputs of a cross-modal case."""
    query, database = case.tensor("in_qB"), case.tensor("in_rB")
    return query, case.tensor(query_label), database, case.tensor("in_retrieval_L")


def zero_shot_sides(case: Case) -> Sides:
    """Return the inputs of a zero-shot case."""
    query, database = case.tensor("in_query_codes"), case.tensor("in_db_codes")
    return query, case.tensor("in_query_labels"), database, case.tensor("in_db_labels")


def extreme_orders(sides: Sides) -> tuple[Tensor, Tensor]:
    """Return the order with relevant rows last among equal distances, and that with them first.

    They are the worst and the best order of every number that grows when a relevant row moves
    before an irrelevant one. The distances are multiples of 1/2, so 4·d ± 1 keeps them apart.
    """
    query, query_label, database, label = sides
    distance, relevant = hamming_distance(query, database), share_label(query_label, label)
    return stable_order(4 * distance + relevant), stable_order(4 * distance - relevant)


def within(case: Case, key: str, worst: Any, best: Any, rtol: float = RTOL_SUM) -> None:
    """Require that the recorded numbers lie between ours of the worst and of the best order."""
    recorded = case.array(key)
    low, high = np.asarray(worst), np.asarray(best)
    if np.isnan(recorded).all() and np.isnan(low).all() and np.isnan(high).all():
        case.compared.add(key)  # the harness calls two NaN different
        return
    case.close(key, np.clip(recorded, low, high), rtol=rtol)


def map_between(
    case: Case,
    key: str,
    policy: str | Policy,
    sides: Sides,
    at: int | None = None,
    signs: Sides | None = None,
) -> None:
    """Compare a mAP that only grows when a relevant row moves ahead; ours by row number, too.

    ``signs`` have the distances that the policy makes of ``sides``, if it makes others.
    """
    orders = extreme_orders(signs or sides)
    worst, best = (compat_map(policy, *sides, at=at, order=order) for order in orders)
    within(case, key, worst, best)
    ours_within(case, compat_map(policy, *sides, at=at), worst, best)


def ours_within(case: Case, ours: float, worst: float, best: float) -> None:
    """Require that our number of the stable order is one of those that an order may give."""
    if not (worst - RTOL_SUM <= ours <= best + RTOL_SUM or np.isnan([ours, worst, best]).all()):
        raise GoldenError(f"{case.source}: {ours} is outside of {worst} to {best}")


@adapter("map_mith")
def map_mith(case: Case) -> None:
    """MAP of the loop calculator, over all relevant rows and over the first k."""
    sides = cross_modal_sides(case)
    for key in case.keys("out_map_*"):
        map_between(case, key, "mith", sides, first_k(key))


@adapter("map_norelevant")
def map_norelevant(case: Case) -> None:
    """NaN of the matrix calculators, since a query has no relevant row."""
    for policy in ("kalenforn", "dchmt"):
        map_between(case, "out_map_matrix_version", policy, cross_modal_sides(case))


def first_k(key: str) -> int | None:
    """Return k of a key with ``_k<number>``, None for all."""
    found = re.search(r"_k(\d+)", key)
    return int(found[1]) if found else None


@adapter("map_orig_variants")
def map_orig_variants(case: Case) -> None:
    """Both calculators of DCHMT, on labels with and without empty queries, and its three curves.

    The curves were recorded with ``in_query_L_noempty``.
    """
    for key in [*case.keys("out_loop_*"), *case.keys("out_matrix_*")]:
        policy = "mith" if key.startswith("out_loop_") else "dchmt"
        label = "in_query_L_noempty" if key.endswith("_noempty") else "in_query_L"
        map_between(case, key, policy, cross_modal_sides(case, label), first_k(key))
    sides = cross_modal_sides(case, "in_query_L_noempty")
    orders = extreme_orders(sides)
    topn = [dchmt_topn_precision(*sides, order=order) for order in orders]
    within(case, "out_topn_precision_50pts", *topn)
    radius = [dchmt_precision_within(*sides, order=order) for order in orders]
    within(case, "out_precision_within_radius", *radius)
    curve = dchmt_curve_by_radius(*sides)
    case.close("out_pr_precision_by_radius", curve.precision)
    case.close("out_pr_recall_by_radius", curve.recall)


@adapter(
    "map",
    not_compared={
        "out_argsort_numpy_default": "the order that an unstable sort happened to give",
        "out_topk_torch": "the order that torch.topk happened to give, which it leaves open",
    },
)
def zero_shot_map(case: Case) -> None:
    """MAP of DeepHash (and PZSH) and of FIRe (and PIXEL), at all and at R, and DeepHash's curves.

    ``out_map_lo_*`` and ``out_map_hi_*`` are of the "worst and best tie order". With a cut that is
    a matter of reading, since the denominator depends on the order, too: accepted is the least
    value of any order as well as that of the order with relevant rows last; likewise the best.
    """
    sides = zero_shot_sides(case)
    orders = extreme_orders(sides)
    histograms = build_histograms(*sides)
    for cut, at in (("all", None), ("topk", case.cfg("topk"))):
        band = average_precision_at(histograms, at, "retrieved")
        low, high = (float(mean_over_queries(part)) for part in (band.worst, band.best))
        for policy, name in (("deephash", "dh"), ("fire", "fire")):
            within(case, f"out_map_{name}_{cut}", low, high)
            case.close(f"out_map_stable_{cut}", compat_map(policy, *sides, at=at))
            last, first = (compat_map(policy, *sides, at=at, order=order) for order in orders)
            either(case, f"out_map_lo_{cut}", low, last)
            either(case, f"out_map_hi_{cut}", high, first)
    map_between(case, "out_pr_map", "deephash", sides)
    curves = [deephash_curve(*sides, order=order) for order in orders]
    within(case, "out_pr_precision", *(curve.precision for curve in curves))
    within(case, "out_pr_recall", *(curve.recall for curve in curves))


def either(case: Case, key: str, one: float, other: float) -> None:
    """Compare a recorded number with whichever of two readings is nearer to it."""
    recorded = float(case.array(key))
    case.close(key, min((one, other), key=lambda value: abs(value - recorded)))


@adapter("map_minus1")
def map_minus_one(case: Case) -> None:
    """MAP of DeepHash at k = -1, which leaves out the farthest row, and at all."""
    sides = zero_shot_sides(case)
    rows = len(sides[2])
    for key, at, cut in (("out_map_topk_minus1", -1, rows - 1), ("out_map_all", None, None)):
        band = average_precision_at(build_histograms(*sides), cut, "retrieved")
        low, high = (float(mean_over_queries(part)) for part in (band.worst, band.best))
        within(case, key, low, high)
        ours_within(case, compat_map("deephash", *sides, at=at), low, high)


@adapter("map_real")
def map_real(case: Case) -> None:
    """MAP of FIRe on real values: by signs with zeros, cosine, Euclidean and signs about the mean.

    Signs tie, and torch.topk leaves their order open; cosines and Euclidean distances do not.
    """
    query, database = case.tensor("in_query"), case.tensor("in_db")
    labels = case.tensor("in_query_labels"), case.tensor("in_db_labels")
    sides = query, labels[0], database, labels[1]
    fire = POLICIES["fire"]
    cosine = dataclasses.replace(fire, distance="cosine")
    case.close("out_fire_cosine", compat_map(cosine, *sides))
    euclidean = dataclasses.replace(fire, distance="euclidean")
    case.close("out_fire_euclid", compat_map(euclidean, *sides, at=EUCLIDEAN_AT))
    mean = database.mean(0)
    for key, shift in (("out_fire_hamming", torch.zeros_like(mean)), ("out_fire_zero_mean", mean)):
        policy = dataclasses.replace(fire, zero_mean=bool(shift.any()))
        signs = (query - shift).sign(), labels[0], (database - shift).sign(), labels[1]
        map_between(case, key, policy, sides, signs=signs)


@adapter("prk")
def precision_recall_at(case: Case) -> None:
    """Means of P@k and R@k over all queries."""
    sides = zero_shot_sides(case)
    curves = [
        deephash_precision_recall(*sides, case.cfg("ks"), order=order)
        for order in extreme_orders(sides)
    ]
    within(case, "out_precision", *(curve.precision for curve in curves))
    within(case, "out_recall", *(curve.recall for curve in curves))


@adapter("vtph_map")
def vtph_map(case: Case) -> None:
    """MAP of real-valued inner products: no two distances are equal."""
    query, database = case.tensor("in_qB"), case.tensor("in_rB")
    sides = query, case.tensor("in_ql"), database, case.tensor("in_rl")
    for key in case.keys("out_map_*"):
        cut = key.removeprefix("out_map_").removeprefix("at_")
        at = None if cut == "all" else int(cut)
        case.close(key, compat_map("mith", *sides, at=at), rtol=RTOL_SUM)
