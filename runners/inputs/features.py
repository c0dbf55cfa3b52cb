"""Features of a frozen encoder, computed once for a whole dataset and kept in HDF5.

The key covers all that the features depend on: the encoder's weights and settings, the image
sources or captions, the operations on the images, and whether token features are kept. Rows are
those of the dataset, so one file serves every split, seed, code length and method. Work that is
interrupted or killed is gone on with, see :mod:`runners.inputs.feature_file`.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from common.batch import Batch, Features
from common.storage.blocks import Blocks, saying_what_stays
from common.storage.cache import cached_by_blocks
from dataset.base import ImageSource
from dataset.image_cache import ImageCache
from dataset.loader import SplitView, ViewInputs, make_loader
from dataset.operation_lists import Geometry
from dataset.stacked import StackedImages, stack
from models.base import Backbone
from runners.inputs.feature_file import NAMES, FeatureFile
from utils.files import digest
from utils.progress import row_progress

log = logging.getLogger("hashing")
VERSION = "2"  # part of every key: raise it when what is computed changes


@dataclasses.dataclass(frozen=True)
class FeatureBank:
    """Cached features of one modality, memory-mapped.

    Attributes:
        features: pooled [N,D], tokens [N,L,D] or None, mask [N,L] or None; for texts N counts
            captions.
        bad_rows: rows whose image could not be read (their features are 0).
    """

    features: Features
    bad_rows: np.ndarray


def encoder_mark(backbone: Backbone, geometry: Geometry | None) -> str:
    """Return a hash of all that decides the pooled features of given images."""
    return digest(VERSION, backbone.fingerprint, str(geometry))


@dataclasses.dataclass(frozen=True)
class FeatureCache:
    """The cached features of one frozen encoder, computed where they are missing.

    ``tokens``: whether token features are kept beside the pooled ones.
    """

    backbone: Backbone
    tokens: bool
    batch_size: int
    device: torch.device

    def images(
        self, images: ImageSource, geometry: Geometry, on_bad_image: str = "error",
        beside: Sequence[Geometry] = (),
    ) -> FeatureBank:  # fmt: skip
        """Return the features of all images; of stacked sources each has a cache of its own.

        ``beside``: further geometries that the run needs, so that images are decoded once for all.
        """
        if isinstance(images, StackedImages):
            each = (self.images(part, geometry, on_bad_image, beside) for part in images.parts)
            return _stacked(list(each))
        key = digest(
            VERSION, "image", self.backbone.fingerprint, images.fingerprint, str(geometry),
            str(self.tokens), on_bad_image,
        )  # fmt: skip

        def build(blocks: Blocks) -> None:
            cache = ImageCache.open(images, (geometry, *beside), on_bad_image)
            inputs = ViewInputs(cache.images(geometry), self.backbone.image_input)

            def batches(start: int) -> Iterable[Batch]:
                rows = np.arange(start, len(images))
                view = SplitView(rows, np.zeros((len(images), 1)), inputs)
                return make_loader(view, self.batch_size)

            self._write(blocks, batches, len(images), "image", cache.bad_rows)

        return _open(cached_by_blocks("features", f"{key}.h5", build))

    def texts(self, captions: list[str]) -> FeatureBank:
        """Return the features of all captions, in order."""
        key = digest(
            VERSION, "text", self.backbone.fingerprint, digest(*captions), str(self.tokens)
        )

        def batches(first: int) -> Iterator[Batch]:
            for start in range(first, len(captions), self.batch_size):
                ids, mask = self.backbone.tokenize(captions[start : start + self.batch_size])
                index = torch.arange(start, start + len(ids))
                yield Batch(label=torch.zeros(len(ids), 1), index=index, text=ids, text_mask=mask)

        def build(blocks: Blocks) -> None:
            self._write(blocks, batches, len(captions), "text", np.empty(0, np.int64))

        return _open(cached_by_blocks("features", f"{key}.h5", build))

    @torch.no_grad()
    def _write(
        self, blocks: Blocks, batches: Callable[[int], Iterable[Batch]], rows: int, modality: str,
        bad_rows: np.ndarray,
    ) -> None:  # fmt: skip
        """Encode the rows that are not in ``blocks`` yet; ``batches(start)`` begins at a row."""
        title = f"{modality} features"
        file = FeatureFile(blocks, rows, bad_rows)
        before = f", {file.done:,} of them before" if file.done else ""
        log.info("computing %s of %s rows (cached afterwards)%s", title, f"{rows:,}", before)
        self.backbone.to(self.device).eval()
        stays, bar = saying_what_stays(title, blocks, rows), row_progress(title, rows, file.done)
        with stays, file, bar as advance:
            for batch in batches(file.done) if file.done < rows else ():
                features = self.backbone(batch.to(self.device), modality, tokens=self.tokens)
                named = zip(NAMES, features, strict=True)
                kept = {n: v for n, v in named if v is not None and (self.tokens or n == "pooled")}
                file.append({name: value.cpu().numpy() for name, value in kept.items()})
                advance(len(batch))


def _stacked(banks: list[FeatureBank]) -> FeatureBank:
    starts = np.cumsum([0, *(len(bank.features.pooled) for bank in banks)])
    bad = [bank.bad_rows + start for bank, start in zip(banks, starts, strict=False)]
    parts = [stack(arrays) for arrays in zip(*(bank.features for bank in banks), strict=True)]
    return FeatureBank(Features(*parts), np.concatenate(bad))  # type: ignore[arg-type]


def _open(path: Path) -> FeatureBank:
    import h5py

    with h5py.File(path, "r") as file:
        stored = [file.get(name) for name in NAMES]
        parts = [  # contiguous, so that they can be mapped into memory
            s and np.memmap(path, s.dtype, "r", s.id.get_offset(), s.shape) for s in stored
        ]
        return FeatureBank(Features(*parts), file["bad_rows"][:])  # type: ignore[arg-type]
