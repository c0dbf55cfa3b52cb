"""Retrieval directions: which modality asks and which answers."""

from __future__ import annotations

from collections.abc import Iterable

from utils.errors import unknown_name

DIRECTIONS = ("i2t", "t2i", "i2i", "t2t")
_MODALITIES = {"i": "image", "t": "text"}


def sides(direction: str) -> tuple[str, str]:
    """Return the query's and the database's modality.

    Raises:
        UserError: no such direction.

    >>> sides("i2t")
    ('image', 'text')
    """
    if direction not in DIRECTIONS:
        raise unknown_name("direction", direction, DIRECTIONS)
    return _MODALITIES[direction[0]], _MODALITIES[direction[2]]


def usual_directions(asks: Iterable[str], answers: Iterable[str]) -> list[str]:
    """Return the directions measured unless others are asked for.

    Args:
        asks: modalities of the query.
        answers: modalities of the database.

    Returns:
        Across modalities where that is possible, else within one.

    >>> usual_directions(["image", "text"], ["image", "text"])
    ['i2t', 't2i']
    >>> usual_directions(["image"], ["image"])
    ['i2i']
    """
    pairs = {(one, two) for one in asks for two in answers}
    possible = [direction for direction in DIRECTIONS if sides(direction) in pairs]
    across = [direction for direction in possible if direction[0] != direction[2]]
    return across or possible
