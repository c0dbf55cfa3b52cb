"""From a trained model to codes, and from codes to metrics in every direction asked for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.code_store import CodeSet
from common.codes import sign
from common.directions import sides
from common.distributed import gather_rows
from common.metrics import retrieval_report
from models.base import Batch, HashModel


@torch.no_grad()
def encode(
    model: HashModel, batches: Iterable[Batch], device: torch.device, modalities: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return modality → codes int8 [N,K] of ±1 of all batches, in their order; sign(0) = +1.

    Under several processes each is handed its own batches, a contiguous share of the rows in rank
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


def report_directions(
    query: CodeSet, database: CodeSet, directions: Sequence[str], *,
    at: Sequence[int | str], no_relevant: str, device: torch.device | str | None = None,
) -> tuple[dict[str, Any], float]:  # fmt: skip
    """Return direction → metrics, and the seconds that their computation took.

    Under several processes, all of which hold all codes, each counts a share of the queries.
    """
    start = time.perf_counter()
    reports = {}
    for direction in directions:
        asks, answers = sides(direction)
        reports[direction] = retrieval_report(
            query.codes[asks], query.labels, database.codes[answers], database.labels,
            at=tuple(at), no_relevant=no_relevant, device=device,
        )  # fmt: skip
    return reports, time.perf_counter() - start


def mean_map(reports: dict[str, Any]) -> float:
    """Return the mean over directions of the expected mAP@all: what an epoch is selected by."""
    return float(np.mean([report["map"]["all"]["expected"] for report in reports.values()]))
