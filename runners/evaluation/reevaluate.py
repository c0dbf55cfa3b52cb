"""Measuring a finished run again, from its saved codes and without its model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.code_files.run_codes import CodeSet, read_codes, read_identity
from common.config.layers import Layer, parse_overrides, read_layer
from common.config.run_config import eval_settings
from common.directions import sides
from common.storage.identity import Identity
from common.storage.run_folder import RunFolder
from dataset.splits import SplitManifest
from runners.evaluation.query_ap import FILE, write_query_ap
from runners.evaluation.run_report import measure_words, report_run
from runners.evaluation.selection import Selection
from utils.errors import UserError
from utils.files import write_json

_SETTINGS = ("eval.at", "eval.measure", "eval.directions", "eval.no_relevant")


def reevaluate(path: str, words: Sequence[str] = (), accept_changed: bool = False) -> RunFolder:
    """Recompute ``metrics.json`` and ``query_ap.npz`` of a run with other ``eval.*`` settings.

    Neither encoder nor data are needed; ``accept_changed``: codes may be of others than the run's.

    Raises:
        UserError: not a finished run, settings other than ``eval.*``, a direction whose codes the
            run did not store, or codes of another encoder or other data.
    """
    for word in words:
        if word.partition("=")[0] not in _SETTINGS:
            raise UserError(
                f"evaluate takes eval.at, eval.measure, eval.directions and eval.no_relevant only, "
                f"not '{word}': the codes are what they are; train again for other settings."
            )
    folder = RunFolder.existing(path)
    metrics = folder.metrics()
    folder.require_whole(but=(FILE, "history.jsonl"))
    saved = read_layer(folder.config_file)
    settings = eval_settings([saved, Layer("command line", parse_overrides(words))])
    query, database, split_hash = _read_codes(folder, folder.codes_file, accept_changed)
    directions = settings.directions or list(metrics["directions"])
    _require_codes(path, directions, query, database)
    selected = Selection.read(metrics["protocol"]["selected"])

    def codes_of(epoch: int | None) -> tuple[CodeSet, CodeSet]:
        if epoch is None or epoch == selected.epoch:
            return query, database
        return _read_codes(folder, folder.codes_of_epoch(epoch), accept_changed)[:2]

    seen_classes, trained_rows = None, np.empty(0, np.int64)
    if "zero_shot" in metrics:
        split = SplitManifest.load(folder.path / "split.npz")
        seen_classes = metrics["zero_shot"]["seen_classes"]
        trained_rows = np.concatenate([split.train, split.val])
    start = time.perf_counter()
    found = report_run(
        codes_of, selected, directions, settings,
        seen_classes=seen_classes, trained_rows=trained_rows,
    )  # fmt: skip
    metrics["directions"] = found.directions
    if found.zero_shot:
        metrics["zero_shot"] = found.zero_shot
    metrics["timing"]["time_s"] = time.perf_counter() - start
    metrics["split_hash"] = split_hash
    metrics["protocol"]["queries_without_relevant"] = settings.no_relevant
    metrics["protocol"].pop("measures", None)
    if measures := measure_words(settings):
        metrics["protocol"]["measures"] = measures
    if accepted := folder.status().get("accepted_changes"):
        metrics["protocol"]["accepted_changes"] = accepted
    write_query_ap(folder.path, found.per_query)
    write_json(folder.metrics_file, metrics)
    folder.record_again(folder.metrics_file.name, FILE)
    return folder


def _require_codes(path: str, directions: Sequence[str], query: CodeSet, database: CodeSet) -> None:
    for direction in directions:
        of_query, of_database = sides(direction)
        if of_query not in query.codes or of_database not in database.codes:
            raise UserError(
                f"'{path}' holds codes of {' and '.join(query.codes)} only, so '{direction}' "
                "cannot be measured; train with eval.directions that need both."
            )


def _read_codes(
    folder: RunFolder, file: Path, accept_changed: bool
) -> tuple[CodeSet, CodeSet, str]:
    """Read codes; refuse those made with another encoder, or of other data, than the run's.

    Raises:
        ChangedError: names both.
    """
    recorded, found = folder.identity, read_identity(file)
    if recorded and found:
        now = Identity(**{**recorded, **found})
        changes = now.check(recorded, f"Run '{folder.path}'", accept_changed, f"in '{file.name}'")
        folder.record_accepted(changes, "evaluate")
    return read_codes(file)
