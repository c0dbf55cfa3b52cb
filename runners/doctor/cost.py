"""What a sweep takes: memory of a device, disk, hours. Estimates, and each says how it was made."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from common.config.run_config import RunConfig
from common.storage.cache import cache_root
from dataset.image_operations import Sized
from runners.doctor.data import Rows, dataset_key
from runners.doctor.encoders import towers
from runners.doctor.finding import Finding
from runners.doctor.machine import gpus
from runners.doctor.measured import EncoderCost, matrix_rate, measure_encoder
from runners.inputs.image_operations import check
from runners.inputs.loading import choose_device
from runners.sweeps.queue import folder_of
from runners.sweeps.status import RunStatus, estimate
from utils.errors import UserError
from utils.files import free_space, readable
from utils.memory import ram
from utils.progress import duration

TRAINED_BYTES = 16  # of a parameter: value, gradient and Adam's two averages, in float32
STORED_BYTES = 16  # of a trained parameter in a run folder: last checkpoint with averages, the best
MARGIN = 1.2  # of memory: heads, loss, what lies between
CUDA_BYTES = 1e9  # that CUDA and its libraries take
EFFICIENCY = 0.4  # of the rate of matrix products, that training an encoder reaches
STEP_S = 0.02  # of heads, loss and optimiser in one step


@dataclasses.dataclass(frozen=True)
class Need:
    """A run that is not done, with the costs of its encoder and the rows of its dataset."""

    config: RunConfig
    encoder: EncoderCost | None
    rows: Rows

    @property
    def is_cached(self) -> bool:
        """Whether it trains on features that are computed once."""
        data = self.config.data
        frozen = self.encoder is not None and self.encoder.is_frozen
        return frozen and data.feature_cache == "auto" and not check(data)[0].is_random

    @property
    def inputs_key(self) -> str:
        """What runs that share pictures and features have in common."""
        return repr((dataset_key(self.config), self.config.resolved["backbone"]))


def needs(configs: Iterable[RunConfig], known: Mapping[str, Rows]) -> list[Need]:
    """Return the needs of runs; every distinct encoder is measured once."""
    costs: dict[str, EncoderCost | None] = {}
    found = []
    for config in configs:
        rows = known[dataset_key(config)]
        modalities = towers(config, rows)
        key = repr((config.resolved["backbone"], modalities))
        if key not in costs:
            backbone = config.backbone
            costs[key] = measure_encoder(backbone.name, backbone.config, modalities)
        found.append(Need(config, costs[key], rows))
    return found


def check_device(needs: Sequence[Need]) -> list[Finding]:
    """Return whether the memory of GPU or machine suffices, and whether the device is there."""
    findings = []
    for name in dict.fromkeys(str(getattr(n.config.runner.config, "device", "")) for n in needs):
        runs = sum(str(getattr(n.config.runner.config, "device", "")) == name for n in needs)
        try:
            choose_device(needs[0].config, name or None)
        except UserError as error:
            findings.append(Finding("cost", "device", "missing", str(error), runs=runs))
    half = [n for n in needs if getattr(n.config.runner.config, "precision", "fp32") == "fp16"]
    if half and not gpus():
        found = "runner.precision=fp16 needs a GPU"
        findings.append(Finding("cost", "device", "missing", found, "give bf16", len(half)))
    measured = [need for need in needs if need.encoder is not None]
    if measured:
        findings.append(_memory(max(measured, key=device_bytes)))
    unknown = {_label(need.config) for need in needs if need.encoder is None}
    if unknown:
        found = f"not estimated for {', '.join(sorted(unknown))}"
        findings.append(Finding("cost", "memory", "info", found))
    return findings


def device_bytes(need: Need) -> float:
    """Return an estimate of the memory that a run's training takes on its device."""
    encoder, runner = need.encoder, need.config.runner.config
    assert encoder is not None
    fixed = TRAINED_BYTES * encoder.trained + 4 * (encoder.parameters - encoder.trained)
    width = 4 if getattr(runner, "precision", "fp32") == "fp32" else 2
    batch = getattr(runner, "batch_size", None) or need.config.data.eval_batch_size
    return MARGIN * (fixed + batch * sum(encoder.kept.values()) * width / 4)


def _memory(need: Need) -> Finding:
    """Compare the run that takes most with the GPU, or with the machine's memory."""
    encoder, runner = need.encoder, need.config.runner.config
    assert encoder is not None
    devices = gpus()
    size = device_bytes(need) + (CUDA_BYTES if devices else 0)
    batch, precision = getattr(runner, "batch_size", 0), getattr(runner, "precision", "fp32")
    how = f"about {readable(round(size))}: "
    if encoder.is_frozen:
        how += f"{_label(need.config)} is frozen, {encoder.parameters / 1e6:.0f} M parameters"
    else:
        how += (
            f"{encoder.trained / 1e6:.0f} M trained parameters of {_label(need.config)}, "
            f"{TRAINED_BYTES} bytes each, and what the backward pass keeps of {batch} rows in "
            f"{precision}; {MARGIN - 1:.0%} added"
        )
    kind, room = "memory of the machine", ram()[1]
    if devices:
        kind, room = "memory of a GPU", max(total for _, total, _ in devices)
    how += f"; {readable(room)} {'there' if devices else 'free'}" if room else ""
    if room and size > room:
        get = "the batch is halved where memory ends; runner.precision=bf16 takes less"
        return Finding("cost", kind, "warning", how, get)
    return Finding("cost", kind, "ok", how)


def _label(config: RunConfig) -> str:
    return str(config.resolved["backbone"].get("config", config.backbone.name))


def check_disk(needs: Sequence[Need]) -> list[Finding]:
    """Return for every disk that is written to what will come and what is free."""
    cache = cache_root()
    parts: dict[str, float] = {}
    pictures = {key: size for need in needs for key, size in picture_bytes(need).items()}
    features = {need.inputs_key: feature_bytes(need) for need in needs if need.is_cached}
    there = sum(f.stat().st_size for f in cache.glob("images/*/pixels.npy"))
    parts["pictures"] = max(sum(pictures.values()) - there, 0)
    parts["features"] = sum(features.values())
    places: dict[Path, tuple[str, float]] = {}
    if sum(parts.values()):
        words = " and ".join(f"{readable(round(v))} of {name}" for name, v in parts.items() if v)
        places[cache] = (f"{words} in {cache}", sum(parts.values()))
    for output in dict.fromkeys(need.config.output for need in needs):
        own = [run_bytes(need) for need in needs if need.config.output == output]
        words = f"{readable(round(sum(own)))} of {len(own)} run folders in {output}"
        places[Path(output).absolute()] = (words, sum(own) + 0.75 * max(own))
    return [_disk(group) for group in _by_disk(places)]


def _by_disk(places: Mapping[Path, tuple[str, float]]) -> list[dict[Path, tuple[str, float]]]:
    """Return places grouped by the disk that they are on."""
    groups: dict[int, dict[Path, tuple[str, float]]] = {}
    for path, need in places.items():
        folder = path
        while not folder.exists():
            folder = folder.parent
        groups.setdefault(os.stat(folder).st_dev, {})[path] = need
    return list(groups.values())


def _disk(places: Mapping[Path, tuple[str, float]]) -> Finding:
    free, needed = free_space(next(iter(places))), sum(size for _, size in places.values())
    found = f"up to {readable(round(needed))}, {readable(free)} free: "
    found += ", ".join(words for words, _ in places.values())
    if needed <= free:
        return Finding("cost", "disk", "ok", found)
    get = "make room, give another --output, or another cache by HASHING_CACHE=DIR"
    return Finding("cost", "disk", "missing", found, get)


def picture_bytes(need: Need) -> dict[str, float]:
    """Return what is cached of decoded pictures: dataset and operations → bytes.

    Pictures that keep shapes of their own count as photos of 4:3.
    """
    data, rows = need.config.data, need.rows
    if need.encoder is None or not need.encoder.size:
        return {}
    found: dict[str, float] = {}
    for operations in check(data):
        geometry, _ = operations.scaled(need.encoder.size).split()
        sides = [op.size for op in geometry.operations if isinstance(op, Sized)]
        if not sides or geometry.size == rows.pixels:
            continue  # decoded at every access, or read as they are
        area = sides[-1] ** 2 * (1 if geometry.size else 4 / 3)
        found[f"{dataset_key(need.config)} {geometry}"] = 3.0 * area * rows.rows
    return found


def feature_bytes(need: Need) -> float:
    """Return the bytes of cached features of all pictures and captions."""
    encoder, rows = need.encoder, need.rows
    assert encoder is not None
    counts = {"image": rows.rows, "text": rows.texts}
    wide = need.config.model.entry.target.uses_tokens
    numbers = {m: n + wide * encoder.tokens.get(m, 0) for m, n in encoder.widths.items()}
    return 4.0 * sum(counts[modality] * number for modality, number in numbers.items())


def run_bytes(need: Need) -> float:
    """Return the bytes of a run folder: checkpoints and codes."""
    trained = need.encoder.trained if need.encoder is not None else 0
    codes = (need.rows.query + need.rows.database) * need.config.bits / 4
    return STORED_BYTES * trained + codes + 1e6


def check_time(
    states: Sequence[RunStatus], needs: Sequence[Need], workers: int | str
) -> tuple[Finding, float | None]:
    """Return an estimate of the sweep's remaining time, and its seconds."""
    if not needs:
        return Finding("cost", "time", "ok", "every run is done"), 0.0
    seconds, finished = estimate(states)
    if seconds is not None:
        count = workers if isinstance(workers, int) else max(len(gpus()), 1)
        found = f"about {duration(seconds / count)} for {len(needs)} runs, "
        found += f"from {finished} finished ones, with {count} worker{'s' * (count > 1)}"
        return Finding("cost", "time", "info", found), seconds / count
    measured = [need for need in needs if need.encoder is not None and need.rows.rows]
    if not measured:
        found = "not estimated: neither rows nor encoder are known"
        return Finding("cost", "time", "info", found), None
    devices = len(gpus())
    device = torch.device("cuda" if devices else "cpu")
    rate = matrix_rate(device)
    seconds = total_seconds(measured, rate) / max(devices, 1)
    kind = f"{devices} GPU{'s' * (devices > 1)}" if devices else "this machine's CPU"
    found = (
        f"about {duration(seconds)} for {len(measured)} runs on {kind}: operations of the encoder "
        f"at {EFFICIENCY:.0%} of {rate / 1e9:,.0f} GFLOP/s, measured now by products of matrices, "
        f"and {STEP_S:g} s a step; right to a factor of three"
    )
    if len(measured) < len(needs):
        found += f"; {len(needs) - len(measured)} runs not counted"
    return Finding("cost", "time", "info", found), seconds


def total_seconds(needs: Sequence[Need], rate: float) -> float:
    """Return an estimate of the seconds that runs take, one after the other."""
    operations, steps, shared = 0.0, 0.0, set()
    for need in needs:
        encoder, rows, runner = need.encoder, need.rows, need.config.runner
        assert encoder is not None
        epochs = getattr(runner.config, "epochs", None) or 0
        once = repr((need.inputs_key, need.config.method, need.config.seed))
        if runner.name == "twdh" and once in shared:
            epochs = 0  # one network serves all lengths
        elif once not in shared:
            classifier = getattr(runner.config, "classifier", None)
            epochs += getattr(classifier, "epochs", 0)
        shared.add(once)
        batch = getattr(runner.config, "batch_size", None) or rows.train or 1
        steps += epochs * math.ceil(rows.train / batch)
        row = sum(encoder.flops.values())
        if need.is_cached:
            if need.inputs_key not in shared:
                counts = {"image": rows.rows, "text": rows.texts}
                operations += sum(counts[m] * flops for m, flops in encoder.flops.items())
            shared.add(need.inputs_key)
            continue
        trained = sum(f for m, f in encoder.flops.items() if encoder.kept.get(m))
        operations += epochs * rows.train * (row + 2 * trained)
        operations += measured_rows(need.config, rows, epochs) * row
    return operations / (rate * EFFICIENCY) + steps * STEP_S


def measured_rows(config: RunConfig, rows: Rows, epochs: int) -> float:
    """Return how many rows are encoded to choose the epoch and at the end."""
    times = math.ceil(epochs / config.eval.every)
    each = {"query": rows.query + rows.database, "val": rows.train, "last": 0}
    return times * each[config.eval.select] + rows.query + rows.database


def open_runs(states: Sequence[RunStatus]) -> list[RunConfig]:
    """Return the runs that are still to do, those that others work on left out."""
    return [s.config for s in states if s.is_open and not folder_of(s.config).is_done]
