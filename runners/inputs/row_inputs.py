"""What the views of a run read: a frozen encoder's features where they are exact, else raw rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch

from common.config.run_config import RunConfig
from dataset.base import HashDataset
from dataset.image_cache import Geometry, ImageCache
from dataset.loader import ViewInputs, flatten_captions
from dataset.stacked import sources_of, stack
from models.backbones.base import CachedBackbone
from models.base import Backbone, InputRequest
from runners.inputs import auxiliary
from runners.inputs.auxiliary import AuxiliaryRows
from runners.inputs.features import FeatureCache


@dataclasses.dataclass(frozen=True)
class RowInputs:
    """What the views of a run read.

    Attributes:
        train, evaluation: of the dataset's rows; in training images may have another geometry.
        auxiliary: name → auxiliary inputs that the model reads.
        encoder: the encoder, or what stands in for it where its features are cached.
        unreadable: int64 [n], rows whose image could not be read.
    """

    train: ViewInputs
    evaluation: ViewInputs
    auxiliary: Mapping[str, AuxiliaryRows]
    encoder: Backbone
    unreadable: np.ndarray


def row_inputs(
    config: RunConfig, dataset: HashDataset, backbone: Backbone, request: InputRequest,
    device: torch.device,
) -> RowInputs:  # fmt: skip
    """Return what views read; features are cached where no step and no augmentation changes them.

    Raises:
        UserError: an image that cannot be read, or features of another encoder.
    """
    data = config.data
    cache = FeatureCache(backbone, request.tokens, data.eval_batch_size, device)
    is_frozen = not any(parameter.requires_grad for parameter in backbone.parameters())
    if is_frozen and data.feature_cache == "auto" and data.augment == "none":
        return from_features(config, dataset, cache, request)
    return from_raw_rows(config, dataset, cache, request)


def from_features(
    config: RunConfig, dataset: HashDataset, cache: FeatureCache, request: InputRequest
) -> RowInputs:
    """Return cached features of all rows, computed where they are missing."""
    train_geometry, geometry = _geometries(config, cache.backbone)
    train = evaluation = ViewInputs()
    unreadable = np.empty(0, np.int64)
    if train_geometry is not None and geometry is not None:
        banks = [
            cache.images(dataset.images, wanted, config.data.on_bad_image)
            for wanted in (train_geometry, geometry)
        ]
        train, evaluation = (ViewInputs(image_features=bank.features) for bank in banks)
        unreadable = np.union1d(*(bank.bad_rows for bank in banks))
    if "text" in cache.backbone.modalities and dataset.texts is not None:
        captions, offsets = flatten_captions(dataset.texts)
        features = cache.texts(captions).features
        train, evaluation = (
            dataclasses.replace(view, text_features=features, caption_offsets=offsets)
            for view in (train, evaluation)
        )
    rows = {
        name: auxiliary.from_features(inputs, cache, geometry)
        for name, inputs in auxiliary.requested(dataset, request.auxiliary).items()
    }
    return RowInputs(train, evaluation, rows, _stand_in(cache.backbone, train), unreadable)


def from_raw_rows(
    config: RunConfig, dataset: HashDataset, cache: FeatureCache, request: InputRequest
) -> RowInputs:
    """Return images and token ids of all rows; images are decoded once and cached."""
    backbone, (train_geometry, geometry) = cache.backbone, _geometries(config, cache.backbone)
    train = evaluation = ViewInputs()
    unreadable = np.empty(0, np.int64)
    if train_geometry is not None and geometry is not None:
        distinct = tuple(dict.fromkeys((train_geometry, geometry)))
        parts = sources_of(dataset.images)
        caches = [ImageCache.open(part, distinct, config.data.on_bad_image) for part in parts]
        train, evaluation = (
            ViewInputs(stack([part.array(wanted) for part in caches]), backbone.image_input)
            for wanted in (train_geometry, geometry)
        )
        starts = np.cumsum([0, *(len(part) for part in parts)])
        unreadable = np.concatenate([c.bad_rows + s for c, s in zip(caches, starts, strict=False)])
    if "text" in backbone.modalities and dataset.texts is not None:
        captions, offsets = flatten_captions(dataset.texts)
        tokens = backbone.tokenize(captions)
        train, evaluation = (
            dataclasses.replace(view, tokens=tokens, caption_offsets=offsets)
            for view in (train, evaluation)
        )
    rows = {
        name: auxiliary.from_raw_rows(inputs, cache, geometry)
        for name, inputs in auxiliary.requested(dataset, request.auxiliary).items()
    }
    return RowInputs(train, evaluation, rows, backbone, unreadable)


def _geometries(
    config: RunConfig, backbone: Backbone
) -> tuple[Geometry, Geometry] | tuple[None, None]:
    """Return how images become square in training and in evaluation; None: they are not read."""
    if backbone.image_input is None or "image" not in backbone.modalities:
        return None, None
    size, data = backbone.image_input.size, config.data
    return Geometry(data.train_geometry, size), Geometry(data.eval_geometry, size)


def _stand_in(backbone: Backbone, inputs: ViewInputs) -> CachedBackbone:
    """Return a backbone without parameters, whose features come with the batch."""
    features = {"image": inputs.image_features, "text": inputs.text_features}
    tokens = {m: parts[1] for m, parts in features.items() if parts is not None}
    return CachedBackbone(
        backbone.widths, backbone.token_widths, backbone.fingerprint,
        {m: array.shape[1] for m, array in tokens.items() if array is not None},
    )  # fmt: skip
