"""What stages depend on, as JSON can hold it: settings, data and tensors by their content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from common.config import schema
from common.config.run_config import NOT_IDENTITY, RunConfig
from runners.experiment import Experiment
from utils.files import digest, file_digest


def settings_identity(config: RunConfig) -> dict[str, Any]:
    """Return all settings that decide a result, by dotted key, and plugins by their content."""
    flat = schema.flat(config.resolved)
    plugins = [file_digest(Path(path)) for path in config.resolved["plugins"]]
    return {k: v for k, v in flat.items() if k not in NOT_IDENTITY} | {"plugins": plugins}


def data_identity(experiment: Experiment) -> dict[str, Any]:
    """Return what rows, labels, pictures, captions and encoder are, by content."""
    dataset = experiment.dataset
    captions = [digest(*row) for row in dataset.texts or ()]
    return {
        "split": experiment.split.hash,
        "labels": array_digest(dataset.labels),
        "images": dataset.images.fingerprint,
        "captions": digest(*captions),
        "encoder": experiment.model.backbone.fingerprint,
    }


def array_digest(values: Tensor | np.ndarray) -> str:
    """Return a hash of type, shape and values."""
    array = values.cpu().numpy() if isinstance(values, Tensor) else values
    return digest(f"{array.dtype} {array.shape}", np.ascontiguousarray(array).tobytes())
