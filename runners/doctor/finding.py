"""One thing that ``main.py doctor`` has looked at."""

from __future__ import annotations

import dataclasses
from typing import Literal

State = Literal["ok", "missing", "differs", "warning", "info"]
BLOCKING = ("missing", "differs")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        group: part of the table: machine, runs, weights, data, disk, cost.
        name: what was looked at.
        state: ``missing`` and ``differs`` (there, but not what it should be) keep a sweep from
            starting; ``warning`` does not; ``info`` is no judgement.
        found: what was found, in words.
        get: the command or the file that mends it.
        runs: how many runs need it; 0: no run in particular.
    """

    group: str
    name: str
    state: State
    found: str
    get: str = ""
    runs: int = 0

    @property
    def blocks(self) -> bool:
        """Whether a sweep cannot start as long as this stands."""
        return self.state in BLOCKING
