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

    device: str = "auto"  # auto: a GPU where there is one
    threads: int = 0  # CPU threads; 0 = PyTorch's choice
    epochs: int | None = None  # no meaning here
    batch_size: int | None = None  # no meaning here
    accumulate: int | None = None  # no meaning here
    clip_norm: float | None = None  # no meaning here
    precision: str | None = None  # no meaning here
    drop_last: bool | None = None  # no meaning here
    checkpoint_every: int | None = None  # no meaning here
    tensorboard: bool | None = None  # no meaning here
    pictures: int | None = None  # no meaning here

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
