"""What a run was made with, by content: encoder, data, generated inputs.

It stands in ``status.json``, in checkpoints and in ``codes.h5``. What is found under the same names
later is compared with it, so that nothing goes on with, or answers from, something else.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from utils.errors import UserError

log = logging.getLogger("hashing")


class ChangedError(UserError):
    """Something has other content than when the run was made."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """Hashes of content, 16 hex digits each.

    Attributes:
        encoder: weights and settings of the encoder as it is before training.
        data: pictures, texts, labels, names, split.
        generated: generated inputs that the model reads; "" where it reads none.
        files: that the settings of model, loss and runner name; "" where they name none.
    """

    encoder: str
    data: str
    generated: str = ""
    files: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the hashes by name."""
        return dataclasses.asdict(self)

    def changes(self, recorded: Mapping[str, Any]) -> list[dict[str, str]]:
        """Return what differs from what was recorded: ``what``, ``was`` and ``is`` of each."""
        return [
            {"what": what, "was": str(recorded[what]), "is": value}
            for what, value in self.as_json().items()
            if what in recorded and recorded[what] != value
        ]

    def check(
        self,
        recorded: Mapping[str, Any],
        made: str,
        accept: bool = False,
        where: str = "under the same names",
    ) -> list[dict[str, str]]:
        """Return what differs from what was recorded, if that is accepted.

        Args:
            recorded: hashes by name; those it lacks are not compared.
            made: what was made with them, e.g. "Run 'runs/x'".
            accept: whether the user has said ``--accept-changed``.
            where: the present content was found, in words.

        Raises:
            ChangedError: something differs and was not accepted; names it with both hashes.
        """
        if not recorded:
            log.warning("%s records no fingerprints, being of an earlier version; encoder and data "
                        "cannot be compared with those it was made with.", made)  # fmt: skip
        changes = self.changes(recorded)
        if changes and not accept:
            raise ChangedError(
                f"{made} was made with {_listed(changes, 'was')}, but {where} there is now "
                f"{_listed(changes, 'is')}; put back what was there, make a new run in another "
                "output, or go on knowingly with --accept-changed."
            )
        if changes:
            log.warning("%s was made with %s; accepted: %s.", made, _listed(changes, "was"),
                        _listed(changes, "is"))  # fmt: skip
        return changes


def _listed(changes: list[dict[str, str]], key: str) -> str:
    words = [f"{_WORDS[change['what']]} {change[key] or 'none'}" for change in changes]
    return " and ".join(words)


_WORDS = {
    "encoder": "encoder",
    "data": "data",
    "generated": "generated inputs",
    "files": "files named by settings",
}
