"""Writes the features of a dataset's rows to a file that ``dataset=features`` reads."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.batch import MODALITIES
from common.config.run_config import RunConfig
from dataset.base import HashDataset
from dataset.feature_files import pieces
from dataset.loader import flatten_captions
from dataset.splits import PARTS
from models.base import Backbone
from runners.inputs import loading
from runners.inputs.features import FeatureBank, FeatureCache
from runners.inputs.image_operations import operations_of
from utils.errors import UserError
from utils.files import atomic_path

log = logging.getLogger("hashing")


def export_features(
    config: RunConfig, out: str, tokens: bool = False, settings: Sequence[str] = ()
) -> str:
    """Write features, labels, split and names of all rows; return a command that reads them.

    Pictures are prepared by ``data.eval_image``, and the encoder is taken as it is.

    Args:
        config: dataset and encoder of it count.
        out: path of an HDF5 file.
        tokens: whether token features are written, too.
        settings: the words that the configuration was composed of; those of the encoder are part
            of the command.

    Raises:
        UserError: a file that exists or ends in something else, no modality that the encoder
            encodes, or parts that do not load.
    """
    path = Path(out).expanduser()
    if path.suffix.lower() not in (".h5", ".hdf5"):
        raise UserError(f"--out: '{out}' does not end in .h5.")
    if path.exists():
        raise UserError(f"--out: '{out}' exists; give another name, or remove it.")
    dataset = loading.load_dataset(config)
    if dataset.features is not None:
        raise UserError(f"Dataset '{dataset.name}' holds features already: {config.dataset.name}.")
    backbone = _encoder(config, dataset)
    cache = FeatureCache(
        backbone, tokens, config.data.eval_batch_size, loading.choose_device(config)
    )
    banks, more = _banks(config, dataset, cache)
    arrays = more | _of_rows(dataset)
    _write(path, banks, arrays, dataset)
    rows = ", ".join(
        f"{m} {len(bank.features.pooled):,} x {bank.features.pooled.shape[1]}"
        for m, bank in banks.items()
    )
    log.info("'%s': %s, split %s", out, rows, dataset.split.hash)
    return _command(config, out, settings)


def _encoder(config: RunConfig, dataset: HashDataset) -> Backbone:
    """Return the encoder with the towers for those modalities of the dataset that it has."""
    try:
        return loading.load_backbone(config, dataset.modalities).eval()
    except UserError:
        if dataset.modalities == ("image",):
            raise
        backbone = loading.load_backbone(config, ("image",)).eval()
        log.warning("backbone %s encodes pictures only; texts are left out", config.backbone.name)
        return backbone


def _banks(
    config: RunConfig, dataset: HashDataset, cache: FeatureCache
) -> tuple[dict[str, FeatureBank], dict[str, np.ndarray]]:
    """Return modality → features, and the offsets of captions where a row has several."""
    banks: dict[str, FeatureBank] = {}
    more: dict[str, np.ndarray] = {}
    backbone = cache.backbone
    if backbone.image_input is not None and "image" in backbone.modalities:
        train, evaluation = operations_of(config.data, backbone.image_input.size)
        if train != evaluation:
            log.warning(
                "pictures are prepared by data.eval_image=%s, training rows too", evaluation
            )
        banks["image"] = cache.images(dataset.images, evaluation.split()[0])
    if "text" in backbone.modalities and dataset.texts is not None:
        captions, offsets = flatten_captions(dataset.texts)
        banks["text"] = cache.texts(captions)
        if dataset.several_captions:
            more["text_offsets"] = offsets
    return banks, more


def _of_rows(dataset: HashDataset) -> dict[str, np.ndarray]:
    """Return labels, split and whatever else the dataset states."""
    arrays: dict[str, Any] = {"labels": dataset.labels.astype(np.uint8)}
    arrays |= {p: r for p in PARTS if len(r := getattr(dataset.split, p))}
    if dataset.seen_classes:
        arrays["seen_classes"] = np.array(dataset.seen_classes)
    if dataset.attributes is not None:
        arrays["attributes"] = dataset.attributes
    return arrays


def _write(
    path: Path, banks: Mapping[str, FeatureBank], arrays: Mapping[str, np.ndarray],
    dataset: HashDataset,
) -> None:  # fmt: skip
    """Write everything piece by piece, uncompressed, so that it can be mapped into memory."""
    import h5py

    names = [dataset.images.name(row) for row in range(len(dataset))]
    texts = {"class_names": list(dataset.class_names)}
    if len(set(names)) == len(names):
        texts["paths"] = names
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for modality in (m for m in MODALITIES if m in banks):
            features = banks[modality].features
            for name, values in zip(("", "_tokens", "_mask"), features, strict=True):
                if values is None:
                    continue
                array = np.asarray(values)
                stored = file.create_dataset(f"{modality}{name}", array.shape, array.dtype)
                for start, piece in pieces(array):
                    stored[start : start + len(piece)] = piece
        for name, array in arrays.items():
            file[name] = array
        for name, words in texts.items():
            file.create_dataset(name, data=words, dtype=h5py.string_dtype())


def _command(config: RunConfig, out: str, settings: Sequence[str]) -> str:
    """Return a command that trains on the features with the same validation rows."""
    name = config.resolved["backbone"].get("config", config.backbone.name)
    words = [f"dataset=features dataset.root={out} backbone={name}"]
    words += [w for w in settings if w.startswith("backbone.") and "backbone.freeze=" not in w]
    if hasattr(config.backbone.config, "freeze"):
        words.append("backbone.freeze=all")
    if (seed := config.dataset.config.split.seed) != 0:
        words.append(f"dataset.split.seed={seed}")
    return " ".join(["python main.py", "train", "method=METHOD", *words])
