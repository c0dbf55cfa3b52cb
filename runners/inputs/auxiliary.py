"""Auxiliary images and texts of rows, read as the rows' own are: cached features, or raw inputs.

Nothing is computed unless the model asks for them (:class:`~models.base.InputRequest`).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from common.batch import Features
from dataset.base import WITHOUT_QUERIES, AuxiliaryInputs, HashDataset
from dataset.image_cache import ImageCache
from dataset.loader import SplitView, ViewInputs
from dataset.operation_lists import Geometry
from dataset.splits import SplitManifest
from runners.inputs.features import FeatureCache, encoder_mark
from utils.errors import UserError

log = logging.getLogger("hashing")


@dataclasses.dataclass(frozen=True)
class AuxiliaryRows:
    """One kind of auxiliary inputs, and what views read of it, by number in ``inputs.rows``."""

    inputs: AuxiliaryInputs
    read: ViewInputs

    def view(self, rows: np.ndarray, labels: np.ndarray) -> SplitView:
        """Return the view of those of ``rows`` [n], all of which must have one."""
        numbers = np.searchsorted(self.inputs.rows, rows)
        return SplitView(numbers, labels[self.inputs.rows], self.read)


def requested(dataset: HashDataset, names: Sequence[str]) -> dict[str, AuxiliaryInputs]:
    """Return the dataset's inputs ``names``; in place of missing captions, the rows' own."""
    inputs = {name: dataset.auxiliary[name] for name in names if name in dataset.auxiliary}
    if "second" in names and "second" not in inputs and dataset.texts is not None:
        log.warning(
            "no captions made from pictures: each row's own first caption takes their place; "
            "make them with `main.py generate` and give data.generated=DIR"
        )
        inputs["second"] = AuxiliaryInputs(
            np.arange(len(dataset)),
            "each row's own first caption; none were generated",
            [captions[0] for captions in dataset.texts],
            parts=WITHOUT_QUERIES,
        )
    return inputs


def from_features(
    inputs: AuxiliaryInputs, cache: FeatureCache, geometry: Geometry | None
) -> AuxiliaryRows:
    """Return the inputs as features: the dataset's own where the encoder fits, else cached ones."""
    read = ViewInputs(image_features=_image_features(inputs, cache, geometry))
    if inputs.texts is not None and "text" in cache.backbone.modalities:
        features = cache.texts(inputs.texts).features
        read = dataclasses.replace(read, text_features=features)
    return AuxiliaryRows(inputs, read)


def from_raw_rows(
    inputs: AuxiliaryInputs, cache: FeatureCache, geometry: Geometry | None
) -> AuxiliaryRows:
    """Return the inputs as images and token ids, for an encoder that is trained.

    Images that the encoder encodes as it is before training (``ahead``) are features all the same.
    """
    backbone, read = cache.backbone, ViewInputs()
    if inputs.texts is not None and "text" in backbone.modalities:
        read = ViewInputs(tokens=backbone.tokenize(inputs.texts))
    if inputs.ahead or _fits(inputs, cache, geometry):
        image_features = _image_features(inputs, cache, geometry)
        read = dataclasses.replace(read, image_features=image_features)
    elif inputs.images is not None and geometry is not None:
        images = ImageCache.open(inputs.images, (geometry,)).images(geometry)
        read = dataclasses.replace(read, images=images, image_input=backbone.image_input)
    return AuxiliaryRows(inputs, read)


def check_complete(auxiliary: Mapping[str, AuxiliaryRows], split: SplitManifest) -> None:
    """Require that every row of the parts that come with auxiliary inputs has them.

    Raises:
        UserError: some have none; before training, not after it.
    """
    for name, entry in auxiliary.items():
        for part in entry.inputs.parts:
            rows = getattr(split, part)
            missing = np.setdiff1d(rows, entry.inputs.rows)
            if len(missing):
                raise UserError(
                    f"{len(missing)} of {len(rows)} {part} rows have no '{name}' input, row "
                    f"{missing[0]} first ({entry.inputs.source}); run `main.py generate` to its "
                    "end, with the dataset settings of this run."
                )


def _fits(inputs: AuxiliaryInputs, cache: FeatureCache, geometry: Geometry | None) -> bool:
    """Return whether the inputs come with features, computed by this encoder."""
    encoders = ("", encoder_mark(cache.backbone, geometry))
    return inputs.features is not None and inputs.encoder in encoders


def _image_features(
    inputs: AuxiliaryInputs, cache: FeatureCache, geometry: Geometry | None
) -> Features | None:
    if _fits(inputs, cache, geometry):
        assert inputs.features is not None
        width, columns = cache.backbone.widths.get("image"), inputs.features.shape[1]
        if columns != width:
            raise UserError(
                f"The encoder gives {width} numbers for a picture, and there are {columns} in "
                f"{inputs.source}; give the backbone that made these."
            )
        return Features(torch.from_numpy(inputs.features))
    if inputs.images is None or geometry is None:
        return None
    return cache.images(inputs.images, geometry).features
