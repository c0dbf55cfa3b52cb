"""Methods without gradient (LSH, ITQ): fitted once to the features of the training rows."""

from __future__ import annotations

import dataclasses

from common.registry import RUNNERS
from runners.base import Runner, Selection


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """Keys of ``runner`` with ``name: fit``."""

    device: str = "auto"
    threads: int = 0


@RUNNERS.register("fit", config=FitConfig)
class FitRunner(Runner):
    """Fit once, encode, measure; no loss, no epochs."""

    needs_loss = False

    def train(self) -> Selection:
        """Do nothing: fitting has done it all."""
        return Selection(on="fit")
