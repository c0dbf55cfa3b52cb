"""From a trained model to codes, and from codes to metrics in every direction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.code_files.run_codes import CodeSet
from common.codes import sign
from common.directions import sides
from common.distributed import gather_rows, local_share
from common.metrics.compat.measures import as_json, parse_measure, policy_means
from common.metrics.counting.dispatch import count_histograms
from common.metrics.histograms import Histograms
from common.metrics.inputs import pack_sides
from common.metrics.report import report_histograms
from models.base import Batch, HashModel


@torch.no_grad()
def encode(
    model: HashModel, batches: Iterable[Batch], device: torch.device, modalities: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return modality → codes int8 [N,K] of ±1 of all batches, in their order; sign(0) = +1.

    Under several processes each passes the batches of its share of the rows, contiguous and in rank
    order, and gets the codes of all.
    """
    was_training = model.training
    model.eval()
    parts: dict[str, list[Tensor]] = {modality: [] for modality in modalities}
    for batch in batches:
        moved = batch.to(device)
        for modality in modalities:
            parts[modality].append(sign(model.encode(moved, modality)).to(torch.int8))
    model.train(was_training)
    codes = {}
    for modality, chunks in parts.items():
        none = torch.empty(0, model.problem.bits, dtype=torch.int8, device=device)
        codes[modality] = gather_rows(torch.cat([none, *chunks])).cpu().numpy()
    return codes


def count_directions(
    query: CodeSet, database: CodeSet, directions: Sequence[str], *,
    device: torch.device | str | None = None,
) -> dict[str, Histograms]:  # fmt: skip
    """Return direction → histograms of all queries, from which every metric follows.

    Under several processes, all of which hold all codes, each counts a share of the queries.
    """
    counted = {}
    for direction in directions:
        of_query, of_database = sides(direction)
        rows, against = pack_sides(
            query.codes[of_query], query.labels, database.codes[of_database], database.labels
        )
        share = count_histograms(rows.select(local_share(len(rows))), against, device=device)
        counted[direction] = Histograms(gather_rows(share.rows), gather_rows(share.relevant))
    return counted


def report_counted(
    counted: Mapping[str, Histograms], *, at: Sequence[int | str], no_relevant: str
) -> dict[str, Any]:
    """Return direction → metrics of what was counted."""
    return {
        direction: report_histograms(histograms, at=tuple(at), no_relevant=no_relevant)
        for direction, histograms in counted.items()
    }


def measure_directions(
    query: CodeSet, database: CodeSet, directions: Sequence[str], measures: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Return direction → measure (``kalenforn@all``) → mAP of a release, None where it is NaN.

    Under several processes, all of which hold all codes, each takes a share of the queries.
    """
    parsed = [parse_measure(text) for text in measures]
    means = {}
    for direction in directions:
        of_query, of_database = sides(direction)
        rows, against = pack_sides(
            query.codes[of_query], query.labels, database.codes[of_database], database.labels
        )
        means[direction] = as_json(policy_means(rows, against, parsed))
    return means


def mean_map(reports: dict[str, Any]) -> float:
    """Return the mean over directions of the expected mAP@all."""
    return float(np.mean([report["map"]["all"]["expected"] for report in reports.values()]))
