"""Whether the weights of a sweep's encoders are here, and are those that they are meant to be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from common.config.run_config import RunConfig
from models.backbones.weight_files import WeightFile, weight_files
from models.backbones.weights import RANDOM
from runners.doctor.data import Rows, dataset_key, merged
from runners.doctor.finding import Finding
from runners.doctor.inputs import text_encoder_files
from runners.inputs import loading
from utils.errors import UserError
from utils.files import readable

HASHED = 4 << 30  # bytes of a file that is read to hash it; more takes too long
SHOWN = 12  # digits of a hash


def towers(config: RunConfig, rows: Rows) -> tuple[str, ...]:
    """Return the modalities that the encoder of a run must encode, as far as that is known."""
    try:
        if rows.dataset is not None:
            return loading.input_request(config, rows.dataset).towers
        model: Any = config.model.entry.target
        modalities = model.modalities or ("image", "text")
        return model.input_request(config.model.config, modalities).towers
    except UserError:
        return ("image",)


def check_weights(configs: Sequence[RunConfig], known: dict[str, Rows]) -> list[Finding]:
    """Return what is found of every file of weights that the runs read."""
    groups: dict[str, list[RunConfig]] = {}
    for config in configs:
        modalities = towers(config, known[dataset_key(config)])
        key = repr((config.resolved["backbone"], modalities, config.resolved["model"].get("text")))
        groups.setdefault(key, []).append(config)
    findings: list[Finding] = []
    for group in groups.values():
        config = group[0]
        modalities = towers(config, known[dataset_key(config)])
        name, settings = config.backbone.name, config.backbone.config
        dataset = known[dataset_key(config)].dataset
        if dataset is not None and dataset.features is not None:
            found = f"not read: {config.dataset_name} holds features"
            findings.append(Finding("weights", name, "ok", found, runs=len(group)))
            continue
        try:
            wanted = [*weight_files(name, settings, modalities), *text_encoder_files(config)]
        except UserError as error:
            findings.append(Finding("weights", name, "missing", str(error), runs=len(group)))
            continue
        label = str(config.resolved["backbone"].get("config", name))
        findings += [check_file(file, label, len(group)) for file in wanted]
        if not wanted:
            findings.append(_without_file(label, settings, len(group)))
    return merged(findings)


def _without_file(label: str, settings: Any, runs: int) -> Finding:
    if getattr(settings, "weights", None) == RANDOM:
        return Finding("weights", label, "warning", "random weights, as set", runs=runs)
    return Finding("weights", label, "ok", "needs no file that is known here", runs=runs)


def check_file(file: WeightFile, label: str, runs: int = 0, hashed: bool = True) -> Finding:
    """Return what is found of one file; with ``hashed``, its content is compared as well."""
    title = f"{label}: {file.name}"
    if file.path is None:
        looked = f"not in {' or '.join(file.looked)}" if file.looked else "nowhere"
        if file.chosen:
            looked = f"'{file.looked[0]}' does not exist"
        recorded = _recorded(file.recorded)
        found = f"{looked}; its SHA-256 begins {recorded}" if recorded else looked
        return Finding("weights", title, "missing", found, file.get, runs)
    size = file.path.stat().st_size
    found = f"{readable(size)} at {file.path}"
    if not hashed or not file.recorded or size > HASHED:
        unknown = "; no SHA-256 is recorded" if hashed and not file.recorded else ""
        return Finding("weights", title, "ok", f"{found}{unknown}", runs=runs)
    sha256 = file.sha256()
    if file.fits(sha256):
        return Finding("weights", title, "ok", f"{found}, SHA-256 {sha256[:SHOWN]}…", runs=runs)
    other = f"{found} has SHA-256 {sha256[:SHOWN]}…, recorded is {_recorded(file.recorded)}"
    if file.chosen:
        other += ": other weights than the published ones, or converted"
        return Finding("weights", title, "warning", other, runs=runs)
    return Finding("weights", title, "differs", other, f"remove it, then: {file.get}", runs)


def _recorded(hashes: Iterable[str]) -> str:
    """Return hashes as a line shows them."""
    return " or ".join(f"{known[:SHOWN]}…" for known in hashes)
