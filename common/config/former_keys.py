"""Settings that had other names before, for the ``config.yaml`` of old run folders.

==========================================  ====================================================
``data.train_geometry``, ``eval_geometry``  ``data.train_image``, ``data.eval_image``
``squash``                                  ``squash 224 bicubic``, the default
``crop``                                    ``resize_short 224 bicubic, center_crop 224``
``data.augment``                            at the end of ``data.train_image``
``flip``                                    ``flip 0.5``
``crop_flip``                               ``flip 0.5``; its shift with black borders is gone
``resized_crop_flip``                       a crop of the resized picture, then ``flip 0.5``
==========================================  ====================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from utils.errors import UserError

_GEOMETRIES = {
    "squash": ["squash 224 bicubic"],
    "crop": ["resize_short 224 bicubic", "center_crop 224"],
}
_AUGMENTATIONS = {
    "none": [],
    "flip": ["flip 0.5"],
    "crop_flip": ["flip 0.5"],
    "resized_crop_flip": [
        "random_resized_crop 224 scale 0.08-1 ratio 3/4-4/3 bilinear",
        "flip 0.5",
    ],
}
_KEYS = {
    "augment": "train_image",
    "train_geometry": "train_image",
    "eval_geometry": "eval_image",
}


def present_image_keys(data: Mapping[str, Any], given_in: str | None) -> dict[str, Any]:
    """Return section ``data`` with ``train_image`` and ``eval_image`` in place of former keys.

    Args:
        data: the section as it was read.
        given_in: where a user gives the keys, which refuses former ones; None: a run folder.

    Raises:
        UserError: a former key from a user; names the present one.
    """
    former = {key: data[key] for key in _KEYS if key in data}
    if not former:
        return dict(data)
    if given_in is not None:
        key = next(iter(former))
        raise UserError(
            f"{given_in}: data.{key} is now a part of data.{_KEYS[key]}, a list of operations such "
            "as [resize_short 256 bilinear, flip 0.5, random_crop 224]; give that."
        )
    train = _GEOMETRIES[former.get("train_geometry", "squash")]
    train = [*train, *_AUGMENTATIONS[former.get("augment", "none")]]
    evaluation = _GEOMETRIES[former.get("eval_geometry", "squash")]
    lists = {"train_image": train, "eval_image": evaluation}
    present = {
        key: None if words == _GEOMETRIES["squash"] else words for key, words in lists.items()
    }
    return {**present, **{key: value for key, value in data.items() if key not in _KEYS}}
