"""Features of a frozen encoder, computed once for a whole dataset and kept in HDF5.

The key covers all that the features depend on: the encoder's weights and settings, the picture
sources or captions, the geometry of the pictures, and whether token features are kept. Rows are
those of the dataset, so one file serves every split, seed, code length and method.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from common.batch import Batch, Features
from common.storage.cache import cached
from dataset.base import ImageSource
from dataset.image_cache import Geometry, ImageCache
from dataset.loader import SplitView
from dataset.stacked import StackedImages, stack
from models.base import Backbone
from utils.files import digest
from utils.progress import progress_bar

if TYPE_CHECKING:
    import h5py

log = logging.getLogger("hashing")
VERSION = "1"  # part of every key: raise it when what is computed changes
NAMES = ("pooled", "tokens", "mask")


@dataclasses.dataclass(frozen=True)
class FeatureBank:
    """Cached features of one modality, memory-mapped.

    Attributes:
        features: pooled [N,D], tokens [N,L,D] or None, mask [N,L] or None; for texts N counts
            captions.
        bad_rows: rows whose picture could not be read (their features are 0).
    """

    features: Features
    bad_rows: np.ndarray


def encoder_mark(backbone: Backbone, geometry: Geometry | None) -> str:
    """Return a hash of all that decides the pooled features of given pictures."""
    return digest(VERSION, backbone.fingerprint, repr(geometry))


def image_features(
    backbone: Backbone, images: ImageSource, geometry: Geometry, *,
    tokens: bool, on_bad_image: str, batch_size: int, device: torch.device,
) -> FeatureBank:  # fmt: skip
    """Return the features of all pictures, computing them if they are not cached.

    Of stacked sources each has a cache of its own.
    """
    if isinstance(images, StackedImages):
        banks = [
            image_features(
                backbone, part, geometry, tokens=tokens, on_bad_image=on_bad_image,
                batch_size=batch_size, device=device,
            )
            for part in images.parts
        ]  # fmt: skip
        return _stacked(banks)
    key = digest(
        VERSION, "image", backbone.fingerprint, images.fingerprint, repr(geometry), str(tokens),
        on_bad_image,
    )  # fmt: skip

    def build(path: Path) -> None:
        cache = ImageCache.open(images, (geometry,), on_bad_image)
        view = SplitView(
            np.arange(len(images)), np.zeros((len(images), 1)), images=cache.array(geometry),
            image_input=backbone.image_input,
        )  # fmt: skip
        batches = _batches(view, batch_size)
        _write(path, backbone, batches, len(images), "image", tokens, device, cache.bad_rows)

    return _open(cached("features", f"{key}.h5", build))


def text_features(
    backbone: Backbone, captions: list[str], *,
    tokens: bool, batch_size: int, device: torch.device,
) -> FeatureBank:  # fmt: skip
    """Return the features of all captions in order, computing them if they are not cached."""
    key = digest(VERSION, "text", backbone.fingerprint, digest(*captions), str(tokens))

    def build(path: Path) -> None:
        def batches() -> Iterator[Batch]:
            for start in range(0, len(captions), batch_size):
                ids, mask = backbone.tokenize(captions[start : start + batch_size])
                index = torch.arange(start, start + len(ids))
                yield Batch(label=torch.zeros(len(ids), 1), index=index, text=ids, text_mask=mask)

        nothing = np.empty(0, np.int64)
        _write(path, backbone, batches(), len(captions), "text", tokens, device, nothing)

    return _open(cached("features", f"{key}.h5", build))


def _stacked(banks: list[FeatureBank]) -> FeatureBank:
    starts = np.cumsum([0, *(len(bank.features.pooled) for bank in banks)])
    bad = [bank.bad_rows + start for bank, start in zip(banks, starts, strict=False)]
    parts = [stack(arrays) for arrays in zip(*(bank.features for bank in banks), strict=True)]
    return FeatureBank(Features(*parts), np.concatenate(bad))  # type: ignore[arg-type]


def _batches(view: SplitView, batch_size: int) -> Iterator[Batch]:
    for start in range(0, len(view), batch_size):
        yield view.__getitems__(range(start, min(start + batch_size, len(view))))


@torch.no_grad()
def _write(
    path: Path, backbone: Backbone, batches: Iterator[Batch], rows: int, modality: str,
    tokens: bool, device: torch.device, bad_rows: np.ndarray,
) -> None:  # fmt: skip
    import h5py

    log.info("computing %s features of %d rows (cached afterwards)", modality, rows)
    backbone.to(device).eval()
    with h5py.File(path, "w") as file, progress_bar(f"{modality} features", rows) as advance:
        start = 0
        for batch in batches:
            features = backbone(batch.to(device), modality, tokens=tokens)
            for name, value in zip(NAMES, features, strict=True):
                if value is not None and (tokens or name == "pooled"):
                    values = value.cpu().numpy()
                    if start == 0:
                        file.create_dataset(name, (rows, *values.shape[1:]), values.dtype)
                    file[name][start : start + len(batch)] = values
            start += len(batch)
            advance(len(batch))
        file["bad_rows"] = bad_rows


def _open(path: Path) -> FeatureBank:
    import h5py

    with h5py.File(path, "r") as file:
        parts = [_mapped(path, file[name]) if name in file else None for name in NAMES]
        return FeatureBank(Features(*parts), file["bad_rows"][:])  # type: ignore[arg-type]


def _mapped(path: Path, stored: h5py.Dataset) -> np.ndarray:
    """Map a contiguous HDF5 dataset into memory instead of reading it."""
    offset = stored.id.get_offset()
    return np.memmap(path, stored.dtype, "r", offset, stored.shape)
