"""Templates of prompts: words with placeholders such as ``<label>``."""

from __future__ import annotations

import re
from collections.abc import Collection

from utils.errors import UserError

_PLACEHOLDER = re.compile(r"<(\w+)>")


def check_template(template: str, needed: str, allowed: Collection[str]) -> None:
    """Refuse a template without a required placeholder.

    Raises:
        UserError: it lacks ``<needed>``, or has an unknown placeholder.

    >>> check_template("A photo of a <label>", "label", ("label", "attributes"))
    """
    names = _PLACEHOLDER.findall(template)
    listed = ", ".join(f"<{name}>" for name in allowed)
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise UserError(
            f"--prompt '{template}' has <{unknown[0]}>, which nothing fills; known are {listed}."
        )
    if needed not in names:
        raise UserError(
            f"--prompt '{template}' has no <{needed}>, so all pictures would be of the same; "
            f"put <{needed}> where the words belong."
        )


def fill(template: str, words: dict[str, str]) -> str:
    """Return the template with its placeholders filled; repeated blanks become one.

    >>> fill("A photo of a <attributes> <label>", {"attributes": "", "label": "zebra"})
    'A photo of a zebra'
    """
    return " ".join(_PLACEHOLDER.sub(lambda match: words[match[1]], template).split())


def uses(template: str, name: str) -> bool:
    """Return whether the template has ``<name>``."""
    return name in _PLACEHOLDER.findall(template)
