"""Neutral keys that belong to no method: shuffling, seeds, generated inputs."""

from __future__ import annotations

from typing import Any

from common.config.run_config import RunConfig


def describe_general(config: RunConfig) -> dict[str, Any]:
    """Return the neutral keys that neither ``runners.recipes`` nor a method's adapter states."""
    resize, crop = _sizes(config.data.train_image or [])
    return {
        "shuffle": "every epoch",  # dataset/loader.py, EpochOrder
        "seeds": {name: config.seed for name in ("python", "numpy", "torch")},
        "generated_inputs": _generated(config),
        **({"image_sizes": {"crop": crop, "resize": resize}} if config.method == "shc" else {}),
    }


def _sizes(operations: list[str]) -> tuple[int | None, int | None]:
    """Return the pixels of the first resizing and of the last cut."""
    words = [operation.split()[1] for operation in operations]
    sizes = [int(word) for word in words if word.isdigit()]
    return (sizes[0], sizes[-1]) if sizes else (None, None)


def _generated(config: RunConfig) -> dict[str, Any] | None:
    data, model = config.data, config.model.config
    if config.model.name == "vtph" and data.generated:
        paired = getattr(model, "db_text", None) == "paired"
        return {
            "caption_noise_ratio": data.caption_noise,
            "query pictures": "alone",
            "query texts": "a picture painted from the text, <rank+1>.png squashed to 224, and a "
            "caption of it, one line a query",
            "training and database texts": "the paired picture and one generated caption of it "
            "(image_caption.mat)"
            if paired
            else "the text alone",
        }
    if config.model.name == "pzsh" and config.resolved["dataset"]["split"]["name"] == "lists":
        return {
            "target of a training row": "768 numbers in the list: BLIP's unit class token of the "
            "painted picture"
        }
    return None
