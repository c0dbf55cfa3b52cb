"""Methods without gradient (LSH, ITQ): fitted once to the features of the training rows."""

from __future__ import annotations

import dataclasses
import typing

from common.registry import RUNNERS
from runners.base import Runner
from runners.evaluation.selection import Selection
from runners.standard import StandardConfig


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """Keys of ``runner`` with ``name: fit``.

    Those of training by gradient are accepted as well, so that a sweep can set them for all its
    runs, and resolved to None: runs that differ in them alone are the same run.
    """

    device: str = "auto"  # auto: a GPU where there is one
    threads: int = 0  # CPU threads; 0 = PyTorch's choice

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.default is None:
                object.__setattr__(self, field.name, None)


AcceptedConfig = dataclasses.make_dataclass(
    "AcceptedConfig",
    [
        (name, hint | None, dataclasses.field(default=None, metadata={"ignored": True}))
        for name, hint in typing.get_type_hints(StandardConfig).items()
        if name not in typing.get_type_hints(FitConfig)
    ],
    bases=(FitConfig,),
    frozen=True,
)


@RUNNERS.register("fit", config=AcceptedConfig)
class FitRunner(Runner):
    """Fit once, encode, measure; no loss, no epochs."""

    needs_loss = False

    def train(self) -> Selection:
        """Do nothing: fitting has done it all."""
        return Selection(on="fit")
