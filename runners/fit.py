"""Methods without gradient (LSH, ITQ): fitted once to the features of the training rows."""

from __future__ import annotations

import dataclasses

from common.registry import RUNNERS
from runners.base import Runner, Selection


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """Keys of ``runner`` with ``name: fit``.

    Those of training by gradient are accepted, so that a sweep can set them for all its runs, but
    mean nothing here: they are set to None, and runs that differ in them alone are the same run.
    """

    device: str = "auto"
    threads: int = 0
    epochs: int | None = None
    batch_size: int | None = None
    accumulate: int | None = None
    clip_norm: float | None = None
    precision: str | None = None
    drop_last: bool | None = None
    checkpoint_every: int | None = None
    tensorboard: bool | None = None
    pictures: int | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.default is None:
                object.__setattr__(self, field.name, None)


@RUNNERS.register("fit", config=FitConfig)
class FitRunner(Runner):
    """Fit once, encode, measure; no loss, no epochs."""

    needs_loss = False

    def train(self) -> Selection:
        """Do nothing: fitting has done it all."""
        return Selection(on="fit")
