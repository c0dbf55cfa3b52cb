"""The error that a user can fix, and its hint at the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in the user's input: shown as one sentence without a traceback, exit code 2.

    The message states the input, what is accepted, where, and what to do.
    """


class MissingWeightsError(UserError):
    """Pretrained weights are not here and cannot be had; those that do not fit are no such case."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name closest to ``name``, or ``""``.

    >>> nearest("dcmth", ["dcmht", "dsph"])
    " Did you mean 'dcmht'?"
    """
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a name in no registry: the name, the nearest and all known ones."""
    names = sorted(known)
    listed = ", ".join(names) or "none"
    return UserError(f"Unknown {kind} '{name}'.{nearest(name, names)} Known: {listed}.")
