"""What TensorBoard shows of a run. ``tensorboard --logdir <output>`` shows all runs below it.

``tensorboard/``
    Scalars by epoch: ``loss/<term>`` and ``loss/total``, ``lr/<group>``, ``seconds/epoch``,
    ``map/<on>`` and ``map/<on>/<direction>`` on the rows that the epoch is selected by. Runs with
    stages add theirs.
``tensorboard/codes/``
    A few times while training, and of the final codes under ``final/``: precision and recall by
    radius (``pr_radius``, the tab PR CURVES), histograms over bits of the database's codes
    (``bit_mean``: 0 is balanced; ``bit_correlation``: of every two bits), of the real values whose
    sign is the code (``output``), and what some validation rows retrieve (``retrieved``). Of the
    final codes also precision and recall by rank, where TensorBoard's "step" is the rank.
``tensorboard/final/``
    Settings and final mAP (the tab HPARAMS compares runs).

Test rows are read only for the final figures: pictures are of validation rows.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from common.code_files.run_codes import CodeSet, read_codes
from common.config import schema
from common.config.run_config import NOT_IDENTITY, RunConfig
from common.directions import sides
from common.metrics.counting.dispatch import count_histograms
from common.metrics.inputs import pack_sides
from common.storage.run_folder import RunFolder
from runners.evaluation.measure import mean_map
from runners.evaluation.nearest import nearest, spread
from runners.experiment import Experiment
from runners.results.leaderboard import measures_of
from runners.tensorboard.events import drop_events
from runners.tensorboard.retrieval_sheets import TOP, Sheets, as_jpeg
from runners.training.history import EpochRecord
from utils.fence import fenced

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

DRAWINGS = 10  # of codes in a run: TensorBoard shows as many pictures of a tag
SHARE = 0.01  # of the time since training began that drawings may take; the last is always drawn
FIRST = 0.5  # seconds that the first is expected to take; the others: as the one before
_BINS = np.linspace(-1, 1, 41)
_OUTPUT_BINS = 64
_PIECE = 2**16  # rows of codes that are real numbers at a time


@dataclasses.dataclass(frozen=True)
class EpochCodes:
    """The codes by which an epoch was measured, or the final ones.

    Attributes:
        on: part of the split whose rows are the queries.
        part: that of the rows of ``database``.
    """

    on: str
    part: str
    directions: Sequence[str]
    query: CodeSet
    database: CodeSet


class TensorBoardWriter:
    """Writes what TensorBoard shows of training; without a writer of events it does nothing."""

    def __init__(
        self, events: SummaryWriter | None, experiment: Experiment, *, epoch: int, epochs: int,
        pictures: int = 0,
    ) -> None:  # fmt: skip
        """Go on after ``epoch`` of ``epochs`` epochs: events of later ones are dropped.

        ``events`` writes into the run's ``tensorboard/``; ``pictures`` are the queries whose
        retrieved rows are shown.
        """
        self.events, self.experiment = events, experiment
        self.epochs, self.pictures = epochs, pictures
        self.start, self.spent, self.cost = time.perf_counter(), 0.0, FIRST
        self.drawn = self._tenth(epoch)
        self.sheets = Sheets(experiment.dataset)
        self._code_events: SummaryWriter | None = None
        if events is not None:
            for folder in (Path(events.log_dir), Path(events.log_dir) / "codes"):
                drop_events(folder, lambda tag, step: step > epoch and not tag.startswith("stage/"))

    def _tenth(self, epoch: int) -> int:
        return epoch * DRAWINGS // self.epochs

    def write_epoch(self, record: EpochRecord) -> None:
        """Write the scalars of an epoch."""
        if self.events is None:
            return
        scalars = {f"loss/{name}": value for name, value in record.loss.items()}
        scalars |= {f"lr/{name}": value for name, value in record.lr.items()}
        scalars["seconds/epoch"] = record.seconds
        if record.measured is not None:
            on = record.measured.on
            scalars[f"map/{on}"] = record.measured.score
            parts = {**record.measured.map, **record.measured.cuts}
            scalars |= {f"map/{on}/{name}": value for name, value in parts.items()}
        for tag, value in scalars.items():
            self.events.add_scalar(tag, value, record.epoch)
        self.events.flush()  # before the checkpoint says that the epoch is done

    def draw_codes(self, epoch: int, codes: EpochCodes) -> None:
        """Draw the codes of an epoch, where a drawing is due."""
        if self.events is None:
            return
        start = time.perf_counter()
        affordable = self.spent + self.cost <= SHARE * (start - self.start)
        due = affordable and self._tenth(epoch) > self.drawn
        if not due and epoch < self.epochs:
            return
        self._draw(epoch, codes)
        self.drawn, self.cost = self._tenth(epoch), time.perf_counter() - start
        self.spent += self.cost

    def _draw(self, epoch: int, codes: EpochCodes) -> None:
        assert self.events is not None
        if self._code_events is None:
            self._code_events = open_writer(Path(self.events.log_dir) / "codes")
        events = self._code_events
        add_codes(events, f"pr_radius/{codes.on}", "", self.experiment, codes, epoch)
        if codes.on == "val" and self.pictures > 0:
            for direction in codes.directions:
                self._draw_retrieved(events, epoch, direction, codes)
        events.flush()

    def _draw_retrieved(
        self, events: SummaryWriter, epoch: int, direction: str, codes: EpochCodes
    ) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        positions = spread(codes.query, self.pictures)
        if not positions:
            return
        hits = nearest(codes.query, codes.database, positions, direction=direction, top=TOP)
        rows = codes.query.rows[positions].tolist()
        sheet = self.sheets.draw(direction, list(zip(rows, hits, strict=True)))
        image = Summary.Image(
            height=sheet.height,
            width=sheet.width,
            colorspace=3,
            encoded_image_string=as_jpeg(sheet),
        )
        value = Summary.Value(tag=f"retrieved/{codes.on}/{direction}", image=image)
        add_summary(events, Summary(value=[value]), epoch)

    def close(self) -> None:
        """Write what is still buffered."""
        for events in (self.events, self._code_events):
            if events is not None:
                events.close()


def draw_results(tensorboard: Path, experiment: Experiment, folder: RunFolder) -> None:
    """Write settings, final figures and final codes of a run whose results are written.

    Those of an earlier attempt are replaced.
    """
    metrics, (query, database, _) = folder.metrics(), read_codes(folder.codes_file)
    with fenced(tensorboard):
        shutil.rmtree(tensorboard / "final", ignore_errors=True)
    with open_writer(tensorboard / "final") as writer:
        figures = final_figures(metrics)
        for summary in hyper_parameters(experiment.config, figures):
            add_summary(writer, summary)
        step = metrics["protocol"]["selected"]["epoch"] or 0
        for name, value in figures.items():
            writer.add_scalar(name, value, step)
    drop_events(tensorboard / "codes", lambda tag, step: tag.startswith("final/"))
    with open_writer(tensorboard / "codes") as writer:
        codes = EpochCodes("query", "database", tuple(metrics["directions"]), query, database)
        add_codes(writer, "final/pr_radius", "final/", experiment, codes, step)
        for direction, report in metrics["directions"].items():
            curve = report["pr_rank"]
            for name in ("precision", "recall"):
                for rank, value in zip(curve["rank"], curve[name], strict=True):
                    writer.add_scalar(f"final/{name}_by_rank/{direction}", value, rank)


def open_writer(folder: Path) -> SummaryWriter:
    """Return a writer of events in ``folder``."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))


def add_summary(writer: SummaryWriter, summary: Any, step: int | None = None) -> None:
    """Write a summary that the writer has no method for."""
    file: Any = writer.file_writer
    file.add_summary(summary, step)


def final_figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return tag → final mAP, zero-shot measures where there are some, and training seconds."""
    reports = metrics["directions"]
    figures = {
        f"final/map@{cut}/{direction}": band["expected"]
        for direction, report in reports.items()
        for cut, band in report["map"].items()
    }
    for direction, report in reports.items():
        for name, value in report.get("compat", {}).items():
            if value is not None:
                figures[f"final/{name}/{direction}"] = value
    if all("all" in report["map"] for report in reports.values()):
        figures["final/map@all/mean"] = mean_map(reports)
    for direction, measures in (metrics.get("zero_shot") or {}).get("directions", {}).items():
        for name, value in measures_of(measures).items():
            figures[f"final/zero_shot/{name}/{direction}"] = value
    figures["final/train_s"] = metrics["timing"].get("train_s", 0.0)
    return figures


def hyper_parameters(config: RunConfig, figures: Mapping[str, float]) -> list[Any]:
    """Return the summaries that the tab HPARAMS reads: settings by dotted key, and that it ended.

    The third summary of TensorBoard's, a list of what to show, is left out: it would count for all
    runs, and runs of different methods have different settings.
    """
    from torch.utils.tensorboard.summary import hparams

    plain = {
        key: value if isinstance(value, (str, int, float)) else str(value)
        for key, value in schema.flat(config.resolved).items()
        if key not in NOT_IDENTITY and value is not None
    }
    return list(hparams(plain, dict(figures))[1:])


def pr_by_radius(
    query: CodeSet, database: CodeSet, direction: str, *, no_relevant: str,
    device: torch.device | str | None = None,
) -> np.ndarray:  # fmt: skip
    """Return what the tab PR CURVES shows, float64 [6,K+1].

    Pairs of query and row are classified by "within radius r". TensorBoard's threshold t runs from
    0 to 1 in K steps and is the similarity 1 - r/K: the first column is r = K.

    Returns:
        True and false positives, true and false negatives, precision, recall; of pairs of all
        queries together. A radius that holds no row has precision 0.
    """
    of_query, of_database = sides(direction)
    rows, against = pack_sides(
        query.codes[of_query], query.labels, database.codes[of_database], database.labels
    )
    counted = count_histograms(rows, against, device=device)
    if no_relevant == "skip":
        counted = counted.select(counted.total_relevant > 0)
    retrieved, right = (
        part.sum(0).cumsum(0).flip(0).cpu().numpy().astype(np.float64)
        for part in (counted.rows, counted.relevant)
    )
    missed = right[0] - right
    rejected = (retrieved[0] - right[0]) - (retrieved - right)
    precision = np.divide(right, retrieved, out=np.zeros_like(right), where=retrieved > 0)
    recall = right / right[0] if right[0] > 0 else np.zeros_like(right)
    return np.stack([right, retrieved - right, rejected, missed, precision, recall])


def bit_moments(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of every bit, and the correlation of every two of them.

    Args:
        codes: int8 [N,K] of ±1, N > 0.

    Returns:
        float64 [K] and [K(K-1)/2]. A bit that is the same in all rows correlates with none.
    """
    products = np.zeros((codes.shape[1], codes.shape[1]))
    for start in range(0, len(codes), _PIECE):
        piece = codes[start : start + _PIECE].astype(np.float32)
        products += piece.T @ piece  # integers below 2^24: exact
    mean = codes.mean(0, dtype=np.float64)
    covariance = products / len(codes) - np.outer(mean, mean)
    deviation = np.sqrt(1 - mean**2)  # of ±1
    scale = np.outer(deviation, deviation)
    correlation = np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)
    return mean, np.clip(correlation[np.triu_indices(len(mean), 1)], -1, 1)


def add_codes(
    writer: SummaryWriter, curve: str, prefix: str, experiment: Experiment, codes: EpochCodes,
    step: int,
) -> None:  # fmt: skip
    """Write curves by radius, how balanced the database's bits are and correlate, and outputs."""
    for direction in codes.directions:
        values = pr_by_radius(
            codes.query, codes.database, direction,
            no_relevant=experiment.config.eval.no_relevant, device=experiment.device,
        )  # fmt: skip
        writer.add_pr_curve_raw(f"{curve}/{direction}", *values, step)  # type: ignore[call-arg]
    for modality, bits in codes.database.codes.items():
        if not len(bits):
            continue
        mean, correlation = bit_moments(bits)
        writer.add_histogram(f"{prefix}bit_mean/{modality}", mean, step, bins=_BINS)
        if len(correlation):  # one bit has no other
            tag = f"{prefix}bit_correlation/{modality}"
            writer.add_histogram(tag, correlation, step, bins=_BINS)
    outputs = sampled_outputs(experiment, codes.part, tuple(codes.database.codes))
    for modality, output in outputs.items():
        if len(output):
            writer.add_histogram(f"{prefix}output/{modality}", output, step, bins=_OUTPUT_BINS)


def sampled_rows(rows: int) -> np.ndarray:
    """Return evenly spaced positions: a hundredth of the rows, at least 64, at most 1,024."""
    count = min(rows, max(64, min(1024, math.ceil(rows / 100))))
    return np.linspace(0, rows - 1, count).round().astype(np.int64) if rows else np.arange(0)


@torch.no_grad()
def sampled_outputs(
    experiment: Experiment, part: str, modalities: Sequence[str]
) -> dict[str, Tensor]:
    """Return the finite real values whose sign is the code, of some rows of a part of the split."""
    view, model = experiment.view(part), experiment.model
    was_training = model.training
    model.eval()
    outputs = {modality: torch.empty(0) for modality in modalities}
    for batch in experiment.eval_batches(view, sampled_rows(len(view)).tolist()):
        batch = batch.to(experiment.device)
        for modality, values in outputs.items():
            encoded = model.encode(batch, modality).float().cpu().flatten()
            outputs[modality] = torch.cat([values, encoded])
    model.train(was_training)
    return {modality: values[values.isfinite()] for modality, values in outputs.items()}
