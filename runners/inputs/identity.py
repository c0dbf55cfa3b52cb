"""What a run is made with, by content: see :class:`~common.storage.identity.Identity`."""

from __future__ import annotations

from common.storage.identity import Identity
from dataset.base import AuxiliaryInputs, HashDataset
from dataset.stacked import sources_of
from models.backbones.base import Backbone
from models.base import InputRequest
from utils.files import array_digest, digest


def identity_of(
    dataset: HashDataset, grown: HashDataset, request: InputRequest, backbone: Backbone
) -> Identity:
    """Return the content of all that a run with these parts reads.

    Args:
        dataset: as it was loaded.
        grown: the same with what ``data.generated`` adds.
        request: what the model reads of it.
        backbone: the encoder before any training.
    """
    data = digest(dataset.images.fingerprint, dataset.content)
    return Identity(backbone.fingerprint, data, _generated(dataset, grown, request))


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
