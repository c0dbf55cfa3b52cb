"""Templates of prompts: words with places like ``<label>`` to be filled in."""

from __future__ import annotations

import re
from collections.abc import Collection

from utils.errors import UserError

_PLACE = re.compile(r"<(\w+)>")


def check_template(template: str, needed: str, allowed: Collection[str]) -> None:
    """Refuse a template that cannot do.

    Raises:
        UserError: it lacks ``<needed>``, or has a place that nothing fills.

    >>> check_template("A photo of a <label>", "label", ("label", "attributes"))
    """
    places = _PLACE.findall(template)
    listed = ", ".join(f"<{name}>" for name in allowed)
    unknown = [name for name in places if name not in allowed]
    if unknown:
        raise UserError(
            f"--prompt '{template}' has <{unknown[0]}>, which nothing fills; known are {listed}."
        )
    if needed not in places:
        raise UserError(
            f"--prompt '{template}' has no <{needed}>, so all pictures would be of the same; "
            f"put <{needed}> where the words belong."
        )


def fill(template: str, words: dict[str, str]) -> str:
    """Return the template with its places filled; places side by side leave single blanks.

    >>> fill("A photo of a <attributes> <label>", {"attributes": "", "label": "zebra"})
    'A photo of a zebra'
    """
    return " ".join(_PLACE.sub(lambda place: words[place[1]], template).split())


def uses(template: str, name: str) -> bool:
    """Tell whether the template has ``<name>``."""
    return name in _PLACE.findall(template)
