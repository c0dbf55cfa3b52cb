"""What models read beside a dataset's rows: generated pictures and captions, a BERT of texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.config.run_config import RunConfig
from dataset.base import HashDataset
from dataset.loader import ViewInputs
from models.backbones.open_clip import OpenCLIPConfig
from models.backbones.weight_files import WeightFile, folder_files, hub_files, weight_files
from models.backbones.weights import RANDOM
from models.text.sentence_encoder import EncoderConfig
from runners.doctor.data import Rows, dataset_key, merged
from runners.doctor.finding import Finding
from runners.inputs import loading
from runners.inputs.auxiliary import AuxiliaryRows, check_complete
from utils.errors import UserError

BERT = (("config.json",), ("model.safetensors",), ("tokenizer.json", "vocab.txt"))
GENERATED = {
    "second": "captions of pictures",
    "virtual": "pictures painted from query texts",
    "pseudo": "painted pictures of classes",
}
"""Auxiliary inputs that `main.py generate` makes, in words."""


def check_inputs(configs: Sequence[RunConfig], known: Mapping[str, Rows]) -> list[Finding]:
    """Return what is wrong with texts, captions and generated pictures that models read."""
    findings: list[Finding] = []
    groups: dict[str, list[RunConfig]] = {}
    for config in configs:
        key = repr((dataset_key(config), config.resolved["model"], config.data.generated))
        groups.setdefault(key, []).append(config)
    for group in groups.values():
        rows = known[dataset_key(group[0])]
        findings += _inputs(group[0], rows.dataset, len(group))
    return merged(findings)


def _inputs(config: RunConfig, dataset: HashDataset | None, runs: int) -> list[Finding]:
    """Look at the inputs of one model on one dataset."""
    model, folder = config.model.entry.target, config.data.generated
    try:
        if dataset is not None:
            request = loading.input_request(config, dataset)
        else:
            modalities = model.modalities or ("image",)
            request = model.input_request(config.model.config, modalities)
    except UserError as error:
        title = f"{config.method} on {config.dataset_name}"
        return [Finding("data", title, "missing", str(error), runs=runs)]
    if folder is None:
        return _nothing_generated(config, request.auxiliary, dataset, runs)
    if not Path(folder).expanduser().exists():
        found = f"data.generated='{folder}' does not exist"
        return [
            Finding(
                "data",
                f"generated, {config.dataset_name}",
                "missing",
                found,
                _command(config, folder),
                runs,
            )
        ]
    title = f"generated, {folder}"
    if dataset is None:
        found = "there; compared with the rows once the dataset is here"
        return [Finding("data", title, "info", found, runs=runs)]
    try:
        inputs = loading.add_generated(config, dataset).auxiliary
        read = {name: inputs[name] for name in request.auxiliary if name in inputs}
        rows = {name: AuxiliaryRows(entry, ViewInputs()) for name, entry in read.items()}
        check_complete(rows, dataset.split)
    except (UserError, OSError) as error:
        return [Finding("data", title, "differs", str(error), runs=runs)]
    found = ", ".join(f"{len(entry.rows):,} {name}" for name, entry in read.items()) or "there"
    return [Finding("data", title, "ok", found, runs=runs)]


def _command(config: RunConfig, folder: str) -> str:
    models = "--model SD_FOLDER"
    if config.model.name == "vtph":
        models += " --captioner BLIP_FOLDER"
    if config.model.name == "pzsh":
        models += " --count seen=each --count unseen=100"
    return (
        f"python main.py generate {config.dataset_name} --method {config.model.name} {models} "
        f"--out {folder}"
    )


def _nothing_generated(
    config: RunConfig, names: Sequence[str], dataset: HashDataset | None, runs: int
) -> list[Finding]:
    """Return what a model would read and is not told where to find; it trains without."""
    there = dataset.auxiliary if dataset is not None else {}
    absent = [GENERATED.get(name, name) for name in names if name not in there]
    if not absent:
        return []
    title = f"{config.method} on {config.dataset_name}"
    found = f"data.generated is not set: it trains without {' and '.join(absent)}"
    folder = f"data/{config.dataset_name}_{config.model.name}"
    get = f"{_command(config, folder)}, then data.generated={folder}"
    return [Finding("data", title, "warning", found, get, runs)]


def text_encoder_files(config: RunConfig) -> tuple[WeightFile, ...]:
    """Return the files of the text encoders that a model has of its own (PIXEL's BERT)."""
    found: list[WeightFile] = []
    for field in dataclasses.fields(config.model.config):
        settings = getattr(config.model.config, field.name)
        if not isinstance(settings, EncoderConfig) or settings.weights == RANDOM:
            continue
        folder = Path(settings.weights).expanduser()
        if settings.kind == "clip":
            clip = OpenCLIPConfig(model=settings.model, weights=settings.weights)
            found += weight_files("open_clip", clip, ("text",))
        elif folder.is_dir():
            found += folder_files(folder, BERT, "a BERT")
        else:
            found += hub_files(settings.weights, BERT)
    return tuple(found)
