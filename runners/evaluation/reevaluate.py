"""Measuring a finished run again, from its saved codes and without its model."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from common.code_files.run_codes import read_codes
from common.config.layers import Layer, parse_overrides, read_layer
from common.config.run_config import compose_layers
from common.directions import sides
from common.storage.run_folder import RunFolder
from dataset.splits import SplitManifest
from runners.evaluation.measure import count_directions, report_counted
from runners.evaluation.query_ap import query_ap, write_query_ap
from runners.evaluation.zero_shot import zero_shot_report
from utils.errors import UserError
from utils.files import write_json


def reevaluate(path: str, words: Sequence[str] = ()) -> RunFolder:
    """Recompute ``metrics.json`` and ``query_ap.npz`` of a run with other ``eval.*`` settings.

    Raises:
        UserError: not a finished run, settings other than ``eval.*``, or a direction whose codes
            the run did not store.
    """
    for word in words:
        if not word.startswith(("eval.at=", "eval.directions=", "eval.no_relevant=")):
            raise UserError(
                f"evaluate takes eval.at, eval.directions and eval.no_relevant only, not '{word}': "
                "the codes are what they are; train again for other settings."
            )
    folder = RunFolder.existing(path)
    metrics = folder.metrics()
    saved = read_layer(folder.config_file)
    config = compose_layers([saved, Layer("command line", parse_overrides(words))])
    query, database, split_hash = read_codes(folder.codes_file)
    directions = config.eval.directions or list(metrics["directions"])
    for direction in directions:
        of_query, of_database = sides(direction)
        if of_query not in query.codes or of_database not in database.codes:
            raise UserError(
                f"'{path}' holds codes of {' and '.join(query.codes)} only, so '{direction}' "
                "cannot be measured; train with eval.directions that need both."
            )
    start, no_relevant = time.perf_counter(), config.eval.no_relevant
    counted = count_directions(query, database, directions)
    metrics["directions"] = report_counted(counted, at=config.eval.at, no_relevant=no_relevant)
    if "zero_shot" in metrics:
        split = SplitManifest.load(folder.path / "split.npz")
        metrics["zero_shot"] = zero_shot_report(
            query, database, directions, seen_classes=metrics["zero_shot"]["seen_classes"],
            trained_rows=np.concatenate([split.train, split.val]), at=config.eval.at,
            no_relevant=no_relevant,
        )  # fmt: skip
    per_query = query_ap(counted, no_relevant=no_relevant)
    metrics["timing"]["time_s"] = time.perf_counter() - start
    metrics["split_hash"] = split_hash
    metrics["protocol"]["queries_without_relevant"] = no_relevant
    write_query_ap(folder.path, per_query)
    write_json(folder.metrics_file, metrics)
    return folder
