"""What the views of a run read: a frozen encoder's features where they are exact, else raw rows."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from common.config.run_config import RunConfig
from dataset.base import HashDataset, ImageSource
from dataset.image_cache import ImageCache, Images, OriginalImages
from dataset.image_operations import Operation
from dataset.loader import ViewInputs, flatten_captions
from dataset.operation_lists import Geometry
from dataset.row_features import RowFeatures
from dataset.stacked import StackedRows, sources_of, stack_images
from models.backbones.base import CachedBackbone
from models.base import Backbone, InputRequest
from runners.inputs import auxiliary
from runners.inputs.auxiliary import AuxiliaryRows
from runners.inputs.features import FeatureCache
from runners.inputs.image_operations import operations_of

log = logging.getLogger("hashing")


@dataclasses.dataclass(frozen=True)
class RowInputs:
    """What the views of a run read.

    Attributes:
        train, evaluation: of the dataset's rows; images come by ``data.train_image`` or
            ``data.eval_image``.
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
    """Return what views read; features are cached where neither a step nor chance changes them.

    Raises:
        UserError: an image that cannot be read, or features of another encoder.
    """
    data = config.data
    cache = FeatureCache(backbone, request.tokens, data.eval_batch_size, device)
    is_frozen = not any(parameter.requires_grad for parameter in backbone.parameters())
    train = evaluation = ViewInputs()
    geometry, unreadable = None, np.empty(0, np.int64)
    cached = is_frozen and data.feature_cache == "auto"
    if backbone.image_input is not None and "image" in backbone.modalities:
        train_image, eval_image = operations_of(data, backbone.image_input.size)
        cached = cached and not train_image.is_random
        geometry, _ = eval_image.split()
        images = images_from_features if cached else images_from_raw_rows
        (train, evaluation), unreadable = images(
            dataset.images, (train_image.split(), eval_image.split()), cache, data.on_bad_image
        )
        _tell_unreadable(dataset.images, unreadable)
    if "text" in backbone.modalities and dataset.texts is not None:
        captions, offsets = flatten_captions(dataset.texts)
        text: dict[str, Any] = {"caption_offsets": offsets}
        if cached:
            text["text_features"] = cache.texts(captions).features
        else:
            text["tokens"] = backbone.tokenize(captions)
        train, evaluation = (dataclasses.replace(v, **text) for v in (train, evaluation))
    build = auxiliary.from_features if cached else auxiliary.from_raw_rows
    rows = {
        name: build(inputs, cache, geometry)
        for name, inputs in auxiliary.requested(dataset, request.auxiliary).items()
    }
    encoder = _stand_in(backbone, train) if cached else backbone
    return RowInputs(train, evaluation, rows, encoder, unreadable)


def _tell_unreadable(images: ImageSource, rows: np.ndarray) -> None:
    """Tell how many rows ``data.on_bad_image=skip`` leaves out, and the first of them."""
    if len(rows):
        names = ", ".join(f"'{images.name(int(row))}'" for row in rows[:3])
        log.warning(
            "%d of %d pictures cannot be read, and their rows are left out "
            "(data.on_bad_image=skip): %s%s",
            len(rows), len(images), names, ", …" if len(rows) > 3 else "",
        )  # fmt: skip


def given_inputs(features: RowFeatures, encoder: Backbone, request: InputRequest) -> RowInputs:
    """Return what views read of features that a dataset brings."""
    if request.auxiliary:
        log.warning(
            "features come without the inputs %s, which the method reads where they are; it does "
            "without", ", ".join(request.auxiliary),
        )  # fmt: skip
    parts = {m: features.arrays[m] for m in encoder.modalities}
    view = ViewInputs(
        image_features=parts.get("image"),
        text_features=parts.get("text"),
        caption_offsets=features.caption_offsets,
    )
    return RowInputs(view, view, {}, encoder, np.empty(0, np.int64))


Parts = tuple[Geometry, tuple[Operation, ...]]
"""What is done to an image once, and what at every access."""


def images_from_features(
    images: ImageSource, operations: Sequence[Parts], cache: FeatureCache, on_bad_image: str
) -> tuple[list[ViewInputs], np.ndarray]:
    """Return for each of ``operations`` the cached features of all images; and unreadable rows."""
    geometries = [geometry for geometry, _ in operations]
    banks = [cache.images(images, geometry, on_bad_image, geometries) for geometry in geometries]
    views = [ViewInputs(image_features=bank.features) for bank in banks]
    return views, np.union1d(*(bank.bad_rows for bank in banks))


def images_from_raw_rows(
    images: ImageSource, operations: Sequence[Parts], cache: FeatureCache, on_bad_image: str
) -> tuple[list[ViewInputs], np.ndarray]:
    """Return for each of ``operations`` all images, and the unreadable rows.

    Images are decoded once and cached; where chance comes first, they are decoded at every access.
    """
    parts = sources_of(images)
    once = [geometry for geometry, _ in operations if geometry.operations]
    decoded = [ImageCache.open(part, once, on_bad_image) for part in parts]

    def stored(geometry: Geometry) -> Images | StackedRows:
        if not geometry.operations:
            return OriginalImages(images)
        return stack_images([part.images(geometry) for part in decoded])

    views = [
        ViewInputs(stored(geometry), cache.backbone.image_input, at_access)
        for geometry, at_access in operations
    ]
    starts = np.cumsum([0, *(len(part) for part in parts)])
    bad_rows = [part.bad_rows + start for part, start in zip(decoded, starts, strict=False)]
    return views, np.concatenate(bad_rows)


def _stand_in(backbone: Backbone, inputs: ViewInputs) -> CachedBackbone:
    """Return a backbone without parameters, whose features come with the batch."""
    features = {"image": inputs.image_features, "text": inputs.text_features}
    tokens = {m: parts[1] for m, parts in features.items() if parts is not None}
    return CachedBackbone(
        backbone.widths, backbone.token_widths, backbone.fingerprint,
        {m: array.shape[1] for m, array in tokens.items() if array is not None},
    )  # fmt: skip
