"""The operations on images that the settings name, for the input size of an encoder."""

from __future__ import annotations

import logging

from common.config.run_config import DataConfig
from dataset.operation_lists import Geometry, ImageOperations
from utils.errors import UserError

log = logging.getLogger("hashing")


def check(data: DataConfig) -> tuple[ImageOperations, ImageOperations]:
    """Return the operations in training and in evaluation, in the px that the settings give.

    Raises:
        UserError: a list that is not understood, or chance in evaluation.
    """
    train = ImageOperations.parse(data.train_image, "data.train_image")
    evaluation = ImageOperations.parse(data.eval_image, "data.eval_image")
    if evaluation.is_random:
        raise UserError(
            f"data.eval_image={evaluation} is not accepted: query and database pictures are not "
            "changed by chance; give center_crop in place of a random crop, and no flip."
        )
    return train, evaluation


def operations_of(data: DataConfig, size: int) -> tuple[ImageOperations, ImageOperations]:
    """Return the operations in training and in evaluation for an encoder of ``size`` px.

    Numbers of px are scaled in proportion, which is told if the settings give any.
    """
    given = check(data)
    train, evaluation = (operations.scaled(size) for operations in given)
    names = {"train": (data.train_image, train), "eval": (data.eval_image, evaluation)}
    told = [
        f"data.{name}_image={scaled}"
        for (name, (words, scaled)), before in zip(names.items(), given, strict=True)
        if words is not None and scaled != before
    ]
    if told:
        log.info(
            "sizes of pictures in proportion to the encoder's %d px: %s", size, ", ".join(told)
        )
    return train, evaluation


def eval_geometry(data: DataConfig, size: int) -> Geometry:
    """Return what is done to query and database images for an encoder of ``size`` px."""
    geometry, _ = check(data)[1].scaled(size).split()
    return geometry
