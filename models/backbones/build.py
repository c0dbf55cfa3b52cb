"""Builds a backbone from its name and its checked config."""

from __future__ import annotations

from typing import Any

from common.batch import MODALITIES
from common.registry import BACKBONES, Entry
from models.backbones.base import Backbone
from utils.errors import UserError


def build_backbone(name: str, config: Any, modalities: tuple[str, ...] = MODALITIES) -> Backbone:
    """Return the backbone ``name`` with the towers for ``modalities``; others are dropped.

    Raises:
        UserError: unknown name, absent weights, or a modality that this backbone does not encode.
    """
    return build_entry(BACKBONES.get(name), config, modalities)


def build_entry(entry: Entry, config: Any, modalities: tuple[str, ...] = MODALITIES) -> Backbone:
    """Return the backbone of a registry's entry, as :func:`build_backbone` does."""
    backbone: Backbone = entry.target(config, tuple(modalities))
    lacking = [modality for modality in modalities if modality not in backbone.modalities]
    if lacking:
        raise UserError(
            f"Backbone '{entry.name}' encodes {' and '.join(backbone.modalities)}, but "
            f"{lacking[0]} is needed too; choose a dual encoder, e.g. backbone=clip_vit_b32."
        )
    return backbone


def frozen_modalities(backbone: Backbone) -> tuple[str, ...]:
    """Return the modalities whose features cannot change while training, so may be cached."""
    return tuple(m for m in getattr(backbone, "frozen", ()) if m in backbone.modalities)
