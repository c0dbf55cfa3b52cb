"""No encoder: features that were computed before, as ``dataset=features`` holds them."""

from __future__ import annotations

from common.registry import BACKBONES, NoConfig
from models.backbones.base import Backbone
from utils.errors import UserError


@BACKBONES.register("features", config=NoConfig)
def build(config: NoConfig, modalities: tuple[str, ...]) -> Backbone:
    """No encoder: the features of dataset=features, by an encoder that is not stated.

    Raises:
        UserError: always; where features are at hand, nothing is built.
    """
    raise UserError(
        "backbone=features encodes nothing, it stands for features that dataset=features holds; "
        "for pictures and texts, give the encoder with backbone=NAME."
    )
