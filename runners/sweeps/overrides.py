"""Overrides of a sweep: which runs a ``where`` chooses, and that every part of it chooses some.

A value of ``where`` is compared with the run's, of the grid or else of ``set`` and of the overrides
before. A list matches any of its members; in a text ``*`` stands for any signs and ``?`` for one::

    - {where: {method: [csq, "dsh*"], bits: 16}, set: {optim.lr: 1.0e-3}}
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.errors import UserError, nearest
from utils.shown import brief

_LISTED = 12  # values or keys in a message


@dataclasses.dataclass(frozen=True)
class Override:
    """Settings for the runs whose values match those of ``where``."""

    where: dict[str, Any]
    set: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Point:
    """Words of one run of a grid, and the positions of the overrides that chose it."""

    words: dict[str, Any]
    overrides: tuple[int, ...]


def matches(wanted: Any, value: Any) -> bool:
    """Return whether a value of ``where`` matches a run's value.

    >>> matches(["csq", "dsh*"], "dsh_bits"), matches("cs?", "csq"), matches([16, 32], 64)
    (True, True, False)
    """
    if _equal(wanted, value):  # a list may be a value
        return True
    if isinstance(wanted, list):
        return any(matches(member, value) for member in wanted)
    if isinstance(wanted, str) and isinstance(value, str):
        pattern = re.escape(wanted).replace(r"\*", ".*").replace(r"\?", ".")
        return re.fullmatch(pattern, value, re.DOTALL) is not None
    return False


def _equal(wanted: Any, value: Any) -> bool:
    return wanted == value and isinstance(wanted, bool) == isinstance(value, bool)


def applied(
    points: Sequence[Mapping[str, Any]], common: Mapping[str, Any], overrides: Sequence[Override]
) -> list[Point]:
    """Return each point of the grids with ``common`` and the overrides that choose it."""
    result = []
    for point in points:
        words, chosen = {**point, **common}, []
        for number, override in enumerate(overrides):
            seen = {**words, **point}
            if all(key in seen and matches(v, seen[key]) for key, v in override.where.items()):
                words.update(override.set)
                chosen.append(number)
        result.append(Point(words, tuple(chosen)))
    return result


def check_overrides(
    points: Sequence[Mapping[str, Any]],
    common: Mapping[str, Any],
    overrides: Sequence[Override],
    path: Path,
) -> None:
    """Refuse a ``where`` of the sweep file ``path`` that is passed over, in whole or in part.

    Raises:
        UserError: a key that no run has, a value or a member of a list that is no run's, or values
            that no run has together.
    """
    chosen = {number for p in applied(points, common, overrides) for number in p.overrides}
    for number, override in enumerate(overrides):
        earlier = (other.set for other in overrides[:number])
        sources = [*points, common, *earlier]
        where = f"{path}: overrides[{number}].where"
        for key, wanted in override.where.items():
            _check_value(f"{where}.{key}", key, wanted, sources)
        if number not in chosen:
            raise UserError(
                f"{where}={brief(override.where)} chooses no run: runs have each of its values, "
                "and none has them together; change or remove this override."
            )


def _check_value(place: str, key: str, wanted: Any, sources: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a key or a value of ``where`` that stands in none of the runs' ``sources``."""
    keys = list(dict.fromkeys(name for source in sources for name in source))
    if key not in keys:
        raise UserError(
            f"{place}={brief(wanted)} chooses no run: none has the key '{key}' in grid or set."
            f"{nearest(key, keys)} Keys there: {_listed(keys)}."
        )
    values: list[Any] = []
    for value in (source[key] for source in sources if key in source):
        if not any(_equal(value, known) for known in values):
            values.append(value)
    is_value = any(_equal(wanted, value) for value in values)
    for member in wanted if isinstance(wanted, list) and not is_value else [wanted]:
        if not any(matches(member, value) for value in values):
            names = [str(value) for value in values]
            same = f" Did you mean {member} without quotes?" if str(member) in names else ""
            raise UserError(
                f"{place}: {brief(member)} chooses no run.{same or nearest(str(member), names)} "
                f"Values of {key} there: {_listed(names)}."
            )
    if wanted == [] and not is_value:
        raise UserError(f"{place}=[] chooses no run; give a value, or a list of values.")


def _listed(names: Sequence[str]) -> str:
    more = f", … ({len(names)} in all)" if len(names) > _LISTED else ""
    return ", ".join(brief(name).strip("'") for name in names[:_LISTED]) + more


def described(chosen: Sequence[int], overrides: Sequence[Override]) -> str:
    """Return which overrides chose a run, for the listing of a sweep; "" where it has none.

    >>> described([0], [Override({"method": ["csq", "itq"], "bits": 16}, {})])
    'overrides[0] method=csq|itq, bits=16'
    """
    if not overrides:
        return ""
    shown = []
    for number in chosen:
        pairs = (f"{k}={_word(v)}" for k, v in overrides[number].where.items())
        shown.append(f"overrides[{number}] {', '.join(pairs) or 'every run'}")
    return "; ".join(shown) or "no override"


def _word(wanted: Any) -> str:
    return "|".join(map(str, wanted)) if isinstance(wanted, list) else str(wanted)
