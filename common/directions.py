"""Retrieval directions: the query modality and the database modality."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from utils.errors import unknown_name

DIRECTIONS = ("i2t", "t2i", "i2i", "t2t")
_MODALITIES = {"i": "image", "t": "text"}


def sides(direction: str) -> tuple[str, str]:
    """Return the query modality and the database modality.

    Raises:
        UserError: an unknown direction.

    >>> sides("i2t")
    ('image', 'text')
    """
    if direction not in DIRECTIONS:
        raise unknown_name("direction", direction, DIRECTIONS)
    return _MODALITIES[direction[0]], _MODALITIES[direction[2]]


def usual_directions(
    query_modalities: Iterable[str], database_modalities: Iterable[str]
) -> list[str]:
    """Return the default directions: across modalities if possible, else within one.

    >>> usual_directions(["image", "text"], ["image", "text"])
    ['i2t', 't2i']
    >>> usual_directions(["image"], ["image"])
    ['i2i']
    """
    pairs = set(itertools.product(query_modalities, database_modalities))
    possible = [direction for direction in DIRECTIONS if sides(direction) in pairs]
    across = [direction for direction in possible if direction[0] != direction[2]]
    return across or possible
