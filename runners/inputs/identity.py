"""What a run is made with, by content: see :class:`~common.storage.identity.Identity`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.config import schema
from common.storage.contents import content_digests
from common.storage.identity import Identity
from dataset.base import AuxiliaryInputs, HashDataset
from dataset.stacked import sources_of
from models.backbones.base import Backbone
from models.base import InputRequest
from utils.files import array_digest, digest

READERS = ("model", "loss", "runner")
"""Sections of settings whose components may read files of their own, beside encoder and data."""


def identity_of(
    dataset: HashDataset, grown: HashDataset, request: InputRequest, backbone: Backbone,
    settings: Mapping[str, Any],
) -> Identity:  # fmt: skip
    """Return the content of all that a run with these parts reads.

    Args:
        dataset: as it was loaded.
        grown: the same with what ``data.generated`` adds.
        request: what the model reads of it.
        backbone: the encoder before any training.
        settings: resolved, of the whole run.
    """
    data = digest(dataset.images.fingerprint, dataset.content)
    generated = _generated(dataset, grown, request)
    return Identity(backbone.fingerprint, data, generated, _named_files(settings))


def _named_files(settings: Mapping[str, Any]) -> str:
    """Return a hash of the files, and of those in folders, that settings name by a path."""
    parts = []
    for key, value in schema.flat({part: settings.get(part) for part in READERS}).items():
        if isinstance(value, str) and (os.sep in value or Path(value).suffix):
            path = Path(value).expanduser()
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            contents = zip(files, content_digests(files), strict=True)
            known = [f"{file.name} {content}" for file, content in contents if content]
            parts += [digest(key, *known)] if known else []
    return digest(*parts) if parts else ""


def _generated(dataset: HashDataset, grown: HashDataset, request: InputRequest) -> str:
    read = {n: grown.auxiliary[n] for n in request.auxiliary if n in grown.auxiliary}
    parts = [f"{name} {_auxiliary(inputs)}" for name, inputs in sorted(read.items())]
    if request.generated_rows and grown.generated is not None:
        rows = grown.generated.rows
        parts.append(f"rows {array_digest(rows)} {array_digest(grown.labels[rows])}")
        parts += [digest(*grown.texts[row]) for row in rows] if grown.texts is not None else []
        if grown is not dataset:  # else they are among its pictures
            added = sources_of(grown.images)[len(sources_of(dataset.images)) :]
            parts += [images.fingerprint for images in added]
    return digest(*parts) if parts else ""


def _auxiliary(inputs: AuxiliaryInputs) -> str:
    images, features = inputs.images, inputs.features
    return digest(
        array_digest(inputs.rows), *(inputs.texts or ()), "pictures",
        "" if images is None else images.fingerprint,
        "" if features is None else f"{array_digest(features)} {inputs.encoder}",
        repr((inputs.parts, inputs.ahead)),
    )  # fmt: skip
