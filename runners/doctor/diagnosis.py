"""All that ``main.py doctor`` finds: for a sweep, or for the machine and what ships."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.config import layers
from common.config.run_config import RunConfig, compose
from common.registry import DATASETS
from common.storage.cache import cache_root
from dataset.preparation.index import index_file
from dataset.preparation.prepare import splits_file
from dataset.preparation.prepared_dataset import PreparedConfig
from models.backbones.weight_files import weight_files
from runners.doctor import cost
from runners.doctor.data import check_datasets
from runners.doctor.encoders import check_file, check_weights
from runners.doctor.finding import Diagnosis, Finding, conclusion
from runners.doctor.inputs import check_inputs
from runners.doctor.machine import hardware, software
from runners.sweeps.status import statuses
from runners.sweeps.sweep import SweepFile
from utils.errors import UserError
from utils.files import free_space, readable


def diagnose_sweep(name: str, sweep: SweepFile, configs: Sequence[RunConfig]) -> Diagnosis:
    """Return what the runs of a sweep need and what of it is here.

    Nothing is fetched or written. Runs that are done need nothing any more.
    """
    states = statuses(configs, sweep.retries)
    counts = dict(Counter("to do" if s.state == "interrupted" else s.state for s in states))
    parts = {"done": 0, **counts}
    found = ", ".join(f"{count} {state}" for state, count in parts.items())
    outputs = ", ".join(dict.fromkeys(config.output for config in configs))
    findings = [
        *software(),
        *hardware(),
        Finding("runs", f"{len(states)} runs", "info", f"{found}; {outputs}"),
    ]
    remaining = cost.open_runs(states)
    seconds: float | None = 0.0
    if remaining:
        data, known = check_datasets(remaining)
        findings += check_weights(remaining, known) + data + check_inputs(remaining, known)
        needs = cost.needs(remaining, known)
        findings += [*cost.check_device(needs), *cost.check_disk(needs)]
        time, seconds = cost.check_time(states, needs, sweep.workers)
        findings.append(time)
    sentence = conclusion(name, findings) if remaining else f"{name} is done."
    return Diagnosis(name, tuple(findings), counts, seconds, sentence)


def diagnose_machine() -> Diagnosis:
    """Return what is on this machine: packages, weights of the encoders that ship, datasets."""
    findings = [*software(), *hardware()]
    for title, path in (("disk of the cache", cache_root()), ("disk of runs", Path("runs"))):
        found = f"{readable(free_space(path))} free in {path}"
        findings.append(Finding("machine", title, "info", found))
    encoders, datasets = list(_encoders()), list(_datasets())
    blocking = sum(finding.blocks for finding in findings)
    if blocking:
        sentence = f"No sweep can start: {blocking} of the machine's needs missing."
    else:
        here = sum(finding.state == "ok" for finding in datasets)
        sentence = (
            f"Sweeps on generated pictures can start; {here} of {len(datasets)} datasets of "
            "official files are prepared. What a sweep needs: python main.py doctor SWEEP"
        )
    return Diagnosis("", (*findings, *encoders, *datasets), {}, None, sentence)


def _encoders() -> Iterator[Finding]:
    """Yield a line for every file of weights of the encoders in configs/backbone."""
    for name in layers.config_names("backbone"):
        try:
            backbone = compose([f"backbone={name}"]).backbone
            wanted = weight_files(backbone.name, backbone.config)
        except UserError as error:
            yield Finding("weights", name, "info", str(error))
            continue
        for file in wanted:
            finding = check_file(file, name, hashed=False)
            yield dataclasses.replace(finding, state="info" if finding.blocks else finding.state)


def _datasets() -> Iterator[Finding]:
    """Yield a line for every dataset of official files: prepared under its own root, or not."""
    for name in layers.config_names("dataset"):
        try:
            dataset = compose([f"dataset={name}"]).dataset
        except UserError:
            continue
        if not isinstance(dataset.config, PreparedConfig) or dataset.name not in DATASETS.names():
            continue
        root, source = Path(dataset.config.root).expanduser(), dataset.config.source.name
        if not index_file(root, source).is_file():
            get = f"python main.py prepare {source} --root {root}"
            yield Finding("data", name, "info", f"not prepared in {root}", get)
            continue
        try:
            splits = json.loads(splits_file(root, source).read_text(encoding="utf-8"))
            names = [split for split, content in splits.items() if "hash" in content]
            found = f"prepared in {root}; splits {', '.join(names)}"
        except (OSError, ValueError, AttributeError, TypeError):
            found = f"prepared in {root}, without a readable list of splits"
        yield Finding("data", name, "ok", found)
