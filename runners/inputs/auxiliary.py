"""Further pictures and texts of rows, as views beside those of the rows themselves.

They are encoded like the rows' own: ahead and cached where the encoder is frozen, else as pictures
and token ids. Only models that read them (``HashModel.reads_others``) cause any of it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from common.batch import Features
from common.config.run_config import DataConfig
from dataset.base import WITHOUT_QUERIES, HashDataset, OtherInputs
from dataset.image_cache import Geometry, ImageCache
from dataset.loader import SplitView
from dataset.splits import SplitManifest
from models.base import Backbone
from runners.inputs import features
from utils.errors import UserError

log = logging.getLogger("hashing")


@dataclasses.dataclass(frozen=True)
class OtherSource:
    """Where views read one kind of further inputs.

    Attributes:
        inputs: the rows that have one, and for which parts of the split.
        arguments: of :class:`~dataset.loader.SplitView`, by number in ``inputs.rows``.
    """

    inputs: OtherInputs
    arguments: dict[str, Any]

    def view(self, rows: np.ndarray, labels: np.ndarray) -> SplitView:
        """Return the view of those of ``rows`` [n], all of which must have one."""
        own = self.inputs.rows
        return SplitView(np.searchsorted(own, rows), labels[own], **self.arguments)


def check_complete(others: Mapping[str, OtherSource], split: SplitManifest) -> None:
    """Require that every row of the parts that come with further inputs has them.

    Raises:
        UserError: some have none; before training, not after it.
    """
    for name, other in others.items():
        for part in other.inputs.parts:
            rows = getattr(split, part)
            missing = np.setdiff1d(rows, other.inputs.rows)
            if len(missing):
                raise UserError(
                    f"{len(missing)} of {len(rows)} {part} rows have no '{name}' input, row "
                    f"{missing[0]} first ({other.inputs.source}); run `main.py generate` to its "
                    "end, with the dataset settings of this run."
                )


def chosen_inputs(dataset: HashDataset, names: Sequence[str]) -> dict[str, OtherInputs]:
    """Return what the dataset has under ``names``; in place of missing captions, the rows' own."""
    chosen = {name: dataset.others[name] for name in names if name in dataset.others}
    if "second" in names and "second" not in chosen and dataset.texts is not None:
        log.warning(
            "no captions made from pictures: each row's own first caption takes their place; "
            "make them with `main.py generate` and give data.generated=DIR"
        )
        chosen["second"] = OtherInputs(
            np.arange(len(dataset)),
            "each row's own first caption; none were generated",
            [captions[0] for captions in dataset.texts],
            parts=WITHOUT_QUERIES,
        )
    return chosen


def other_source(
    inputs: OtherInputs, backbone: Backbone, geometry: Geometry | None, data: DataConfig, *,
    cache: bool, tokens: bool, device: torch.device,
) -> OtherSource:  # fmt: skip
    """Encode, or tokenise and decode, further inputs; caches: :mod:`runners.inputs.features`."""
    arguments: dict[str, Any] = {}
    how: dict[str, Any] = {
        "tokens": tokens, "batch_size": data.eval_batch_size, "device": device,
    }  # fmt: skip
    if inputs.texts is not None and "text" in backbone.modalities:
        if cache:
            bank = features.text_features(backbone, inputs.texts, **how)
            arguments["text_features"] = bank.features
        else:
            arguments["tokens"] = backbone.tokenize(inputs.texts)
    fitting = ("", features.encoder_mark(backbone, geometry))
    known = inputs.features if inputs.encoder in fitting else None
    if known is not None:
        width = backbone.widths.get("image")
        if known.shape[1] != width:
            raise UserError(
                f"The encoder gives {width} numbers for a picture, and there are "
                f"{known.shape[1]} in {inputs.source}; give the backbone that made these."
            )
        arguments["image_features"] = Features(torch.from_numpy(known))
    elif inputs.images is not None and geometry is not None:
        if cache or inputs.ahead:
            bank = features.image_features(
                backbone, inputs.images, geometry, on_bad_image="error", **how
            )
            arguments["image_features"] = bank.features
        else:
            pictures = ImageCache.open(inputs.images, (geometry,))
            arguments |= {
                "images": pictures.array(geometry), "image_input": backbone.image_input,
            }  # fmt: skip
    return OtherSource(inputs, arguments)
