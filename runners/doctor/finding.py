"""What ``main.py doctor`` has looked at, and what follows from it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

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


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        sweep: its name, or empty.
        findings: all lines, in order.
        runs: state → number of runs of the sweep.
        seconds: estimate of the remaining time; None where there is none.
        sentence: the conclusion.
    """

    sweep: str
    findings: tuple[Finding, ...]
    runs: dict[str, int]
    seconds: float | None
    sentence: str

    @property
    def can_start(self) -> bool:
        """Whether nothing is in the way."""
        return not any(finding.blocks for finding in self.findings)

    def plain(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return {
            "sweep": self.sweep or None,
            "can_start": self.can_start,
            "sentence": self.sentence,
            "runs": self.runs,
            "estimated_s": self.seconds,
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
        }


def conclusion(name: str, findings: Sequence[Finding]) -> str:
    """Return whether a sweep can start, and what keeps it from that."""
    states = Counter(finding.state for finding in findings)
    words: dict[State, str] = {"missing": "missing", "differs": "not what is recorded or published"}
    reasons = [
        f"{states[state]} {'things are' if states[state] > 1 else 'thing is'} {described}"
        for state, described in words.items()
        if states[state]
    ]
    return f"{name} cannot start: {', '.join(reasons)}." if reasons else f"{name} can start."
