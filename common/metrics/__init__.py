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
from common.metrics.curves import (
    Curve,
    curve_by_radius,
    curve_by_rank,
    log_ranks,
    ndcg_at,
    precision_within,
    relevant_above,
)
from common.metrics.histograms import Histograms, count_histograms
from common.metrics.inputs import as_labels, build_histograms
from common.metrics.ranking import average_precision_first_k
from common.metrics.report import parse_cuts, protocol, report_histograms, retrieval_report

__all__ = [
    "DENOMINATORS",
    "Curve",
    "Histograms",
    "TieBand",
    "as_labels",
    "average_precision",
    "average_precision_at",
    "average_precision_first_k",
    "build_histograms",
    "count_histograms",
    "curve_by_radius",
    "curve_by_rank",
    "log_ranks",
    "mean_band",
    "ndcg_at",
    "parse_cuts",
    "precision_within",
    "protocol",
    "relevant_above",
    "report_histograms",
    "retrieval_report",
]
