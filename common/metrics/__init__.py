"""Retrieval metrics by counting: histograms over Hamming distance, then closed forms.

>>> import numpy as np
>>> from common.metrics import average_precision, build_histograms
>>> codes, labels = np.array([[1, 1], [1, -1], [1, -1]]), np.array([0, 0, 1])
>>> average_precision(build_histograms(codes[:1], labels[:1], codes, labels)).expected.tolist()
[0.9166666666666666]
"""

from common.metrics.average_precision import (
    DENOMINATORS,
    TieBand,
    average_precision,
    average_precision_at,
    mean_band,
)
from common.metrics.compat.average_precision import (
    average_precision_first_k,
    average_precision_in_top,
)
from common.metrics.compat.policies import POLICIES, Policy, compat_map
from common.metrics.compat.stable_order import stable_order
from common.metrics.counting.dispatch import BACKENDS, count_grades, count_histograms
from common.metrics.curves import (
    Curve,
    curve_by_radius,
    curve_by_rank,
    log_ranks,
    ndcg_at,
    precision_within,
    r_precision,
    relevant_above,
)
from common.metrics.histograms import GradedHistograms, Histograms
from common.metrics.inputs import build_histograms, pack_sides
from common.metrics.labels import as_labels
from common.metrics.packed import PackedRows, pack_rows
from common.metrics.report import (
    parse_cuts,
    protocol,
    report_histograms,
    report_packed,
    retrieval_report,
)
from common.metrics.semantic import semantic_ndcg

__all__ = [
    "BACKENDS",
    "DENOMINATORS",
    "POLICIES",
    "Curve",
    "GradedHistograms",
    "Histograms",
    "PackedRows",
    "Policy",
    "TieBand",
    "as_labels",
    "average_precision",
    "average_precision_at",
    "average_precision_first_k",
    "average_precision_in_top",
    "build_histograms",
    "compat_map",
    "count_grades",
    "count_histograms",
    "curve_by_radius",
    "curve_by_rank",
    "log_ranks",
    "mean_band",
    "ndcg_at",
    "pack_rows",
    "pack_sides",
    "parse_cuts",
    "precision_within",
    "protocol",
    "r_precision",
    "relevant_above",
    "report_histograms",
    "report_packed",
    "retrieval_report",
    "semantic_ndcg",
    "stable_order",
]
