"""Features of generated images: in HDF5, and as the list of training rows that PZSH's code reads.

``features.h5``
    ``pooled`` float32 [n,D] as the encoder gives them, ``file`` and ``label`` (class number) [n];
    attributes: ``encoder``, a hash, ``backbone``, its name, ``class_names``
``train_list.txt``
    a line per training row: path, labels of 0 and 1, and the feature of its pseudo-image, of unit
    length, separated by tabs; rows of the split first, then images of unseen classes
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from common.config.run_config import RunConfig
from dataset.auxiliary.pseudo_images import (
    FEATURES,
    PseudoImage,
    pair_rows,
    read_pseudo_images,
    row_name,
)
from dataset.base import HashDataset
from dataset.images import FileImages
from runners.inputs.features import FeatureCache, encoder_mark
from runners.inputs.image_operations import eval_geometry
from runners.inputs.loading import load_backbone
from utils.errors import UserError
from utils.files import atomic_path

LIST = "train_list.txt"


class Encoder:
    """The encoder of the settings, and how images are resized for it.

    Attributes:
        identity: everything that decides the features; JSON values.
    """

    def __init__(self, config: RunConfig) -> None:
        """Load it.

        Raises:
            UserError: it cannot be loaded, or does not encode images.
        """
        self.backbone = load_backbone(config, ("image",))
        if self.backbone.image_input is None:
            raise UserError(f"Backbone '{config.backbone.name}' encodes no pictures; give another.")
        self.geometry = eval_geometry(config.data, self.backbone.image_input.size)
        self.name = str(config.resolved["backbone"].get("config", config.backbone.name))
        self.batch_size = config.data.eval_batch_size
        self.identity = {
            "backbone": self.name, "fingerprint": self.backbone.fingerprint,
            "geometry": str(self.geometry),
        }  # fmt: skip


def write_features(
    root: Path, dataset: HashDataset, encoder: Encoder, device: torch.device
) -> tuple[int, int]:
    """Write both files for all images listed in ``root``; return the counts of images and lines.

    Raises:
        UserError: a listed image is missing or cannot be read.
    """
    import h5py

    images = read_pseudo_images(root, dataset)
    cache = FeatureCache(encoder.backbone, False, encoder.batch_size, device)
    bank = cache.images(FileImages([p.file for p in images], root), encoder.geometry)
    values = np.asarray(bank.features.pooled, np.float32)
    with atomic_path(root / FEATURES) as temporary, h5py.File(temporary, "w") as file:
        text = h5py.string_dtype()
        file.create_dataset("pooled", data=values)
        file.create_dataset("file", data=[p.file for p in images], dtype=text)
        file.create_dataset("label", data=np.array([p.label for p in images], np.int64))
        file.attrs["encoder"] = encoder_mark(encoder.backbone, encoder.geometry)
        file.attrs["backbone"] = encoder.name
        file.attrs.create("class_names", list(dataset.class_names), dtype=text)
    return len(images), _write_list(root / LIST, dataset, images, values)


def _write_list(
    path: Path, dataset: HashDataset, images: list[PseudoImage], values: np.ndarray
) -> int:
    paired, added = pair_rows(dataset, images)
    position = {image.file: i for i, image in enumerate(images)}
    eye = np.eye(dataset.labels.shape[1], dtype=int)
    rows = [(row_name(dataset, r), dataset.labels[r].astype(int), p) for r, p in paired.items()]
    rows += [(image.file, eye[image.label], image) for image in added]
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        for name, label, image in rows:
            if "\t" in name or "\n" in name:
                raise UserError(f"The picture {name!r} has a tab in its name; rename it.")
            value = values[position[image.file]]
            unit = value / max(float(np.linalg.norm(value)), 1e-12)
            numbers = " ".join(f"{v:.6f}" for v in unit)
            stream.write(f"{name}\t{' '.join(map(str, label))}\t{numbers}\n")
    return len(rows)
