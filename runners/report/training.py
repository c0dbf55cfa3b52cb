"""Curves over epochs, from what a run kept: its TensorBoard scalars, else the lines of its log."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

Curve = tuple[list[int], list[float]]
"""Epochs from 1, and a value at each."""

POINTS = 100  # of a curve on the page, at most
_EPOCH = re.compile(r"epoch (\d+)/\d+  loss (\S+?)(?:  (\w+) mAP (\d\.\d+))?  [\d.]+ s$")


def training_curves(run: Path) -> dict[str, Curve]:
    """Return ``loss`` and ``val`` (or ``query``: mAP on what the epoch is chosen on), if kept."""
    curves = _from_events(run / "tensorboard") or _from_log(run / "log.txt")
    return {name: _thinned(curve) for name, curve in curves.items() if len(curve[0]) > 1}


def mean_curve(curves: list[Curve]) -> Curve:
    """Return the mean over runs at the epochs that all of them have."""
    by_epoch = [dict(zip(*curve, strict=True)) for curve in curves]
    common = sorted(set.intersection(*(set(values) for values in by_epoch)))
    return common, [float(np.mean([values[e] for values in by_epoch])) for e in common]


def _from_events(folder: Path) -> dict[str, Curve]:
    if not any(folder.glob("events.out.tfevents.*")):
        return {}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    kinds = ("images", "audio", "histograms", "compressedHistograms", "tensors", "graph")
    events = EventAccumulator(str(folder), {"scalars": 0, **dict.fromkeys(kinds, 1)})
    try:
        events.Reload()
        tags = events.Tags()["scalars"]
        scalars = {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in tags}
    except Exception:  # a torn file raises whatever its reader meets; the log may still be whole
        return {}
    wanted = {"loss/total": "loss", "map/val": "val", "map/query": "query"}
    curves = {}
    for tag, values in scalars.items():
        if tag in wanted:
            epochs = sorted(values)
            curves[wanted[tag]] = (epochs, [float(values[epoch]) for epoch in epochs])
    return curves


def _from_log(file: Path) -> dict[str, Curve]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    values: dict[str, dict[int, float]] = {}
    for line in lines:
        if (found := _EPOCH.search(line)) is None:
            continue
        epoch, loss, part, score = found.groups()
        try:
            values.setdefault("loss", {})[int(epoch)] = float(loss)
        except ValueError:
            continue
        if part in ("val", "query"):
            values.setdefault(part, {})[int(epoch)] = float(score)
    return {name: (sorted(v), [v[e] for e in sorted(v)]) for name, v in values.items()}


def _thinned(curve: Curve) -> Curve:
    epochs, values = curve
    if len(epochs) <= POINTS:
        return curve
    keep = np.unique(np.linspace(0, len(epochs) - 1, POINTS).round().astype(int))
    return [epochs[i] for i in keep], [values[i] for i in keep]
