"""Distances, relevance and mean average precision."""

from __future__ import annotations

import torch

from common.metrics import average_precision, average_precision_first_k, build_histograms
from common.pairwise import hamming_distance, pairwise_cosine, pairwise_euclidean, share_label
from tests.golden.harness import Case, adapter


@adapter("calc_neighbor")
def calc_neighbor(case: Case) -> None:
    """Who shares a label with whom."""
    case.equal("out_sim", share_label(case.tensor("in_a"), case.tensor("in_b")))


@adapter("hamming")
def hamming(case: Case) -> None:
    """Hamming distances, also of codes with zeros, which count half a bit."""
    case.equal("out_dist", hamming_distance(case.tensor("in_a"), case.tensor("in_b")))
    zeros = hamming_distance(case.tensor("in_a_zeros"), case.tensor("in_b_zeros"))
    case.equal("out_dist_with_zeros", zeros)


@adapter("distances")
def distances(case: Case) -> None:
    """Euclidean distances and cosines of all pairs."""
    a, b = case.tensor("in_a"), case.tensor("in_b")
    case.close("out_euclidean", pairwise_euclidean(a, b))
    case.close("out_cosine", pairwise_cosine(a, b))


@adapter(
    "map_noties",
    "map_relties",
    "map_ties",
    not_compared={
        "out_sort_index_used": "the order that an unstable sort happened to give: an input to the "
        "mAP that was recorded with it, and nothing to reproduce"
    },
    not_read={"cfg_tie_order": "a note in words"},
)
def mean_average_precision(case: Case) -> None:
    """MAP of the recorded order, AP of the stable order, and the band over all orders of ties.

    ``out_sort_index_used`` is fed to the recorded definition of mAP@k, not compared.
    """
    query, database = case.tensor("in_qB"), case.tensor("in_rB")
    query_label, database_label = case.tensor("in_query_L"), case.tensor("in_retrieval_L")
    relevant = share_label(query_label, database_label)
    distance = hamming_distance(query, database)
    case.equal("out_hamming", distance)
    stable = torch.sort(distance, dim=1, stable=True)[1]
    case.equal("out_stable_sort_index", stable)
    case.close("out_ap_stable", average_precision_first_k(stable, relevant))
    band = average_precision(build_histograms(query, query_label, database, database_label))
    case.close("out_ap_best_ties", band.best)
    case.close("out_ap_worst_ties", band.worst)
    order = case.array("out_sort_index_used")
    for key in case.keys("out_map_at_*"):
        cut = key.removeprefix("out_map_at_")
        first = None if cut == "all" else int(cut)
        # accumulated in float32 by the reference
        case.close(key, average_precision_first_k(order, relevant, first).mean(), rtol=1e-6)
