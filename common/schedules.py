"""Learning-rate schedules: the factor on the base rate at a step and epoch.

A schedule is called as ``target(config, step, total_steps, epoch, epochs)`` before each step, with
``step`` counted from 0 over the whole training. It has no state, so checkpoints hold none.
"""

from __future__ import annotations

import dataclasses
import math

from common.registry import SCHEDULERS
from utils.errors import UserError


@SCHEDULERS.register("constant")
def constant(config: object, step: int, total_steps: int, epoch: int, epochs: int) -> float:
    """Return 1 at every step."""
    return 1.0


@dataclasses.dataclass(frozen=True)
class WarmupConfig:
    """Keys of the schedules that begin with a rise."""

    warmup: float = 0.1  # share of all steps over which the rate rises linearly from 0 (BERT's w)


@SCHEDULERS.register("warmup_cosine", config=WarmupConfig)
def warmup_cosine(
    config: WarmupConfig, step: int, total_steps: int, epoch: int, epochs: int
) -> float:
    """Rise linearly, then ½(1+cos πx) of the whole x = step/total, as BertAdam does.

    The cosine is not rescaled to start after the warm-up, so the factor drops to 0.976 there.
    """
    x = step / total_steps
    return x / config.warmup if x < config.warmup else 0.5 * (1.0 + math.cos(math.pi * x))


@SCHEDULERS.register("warmup_constant", config=WarmupConfig)
def warmup_constant(
    config: WarmupConfig, step: int, total_steps: int, epoch: int, epochs: int
) -> float:
    """Rise linearly, then stay at 1."""
    x = step / total_steps
    return x / config.warmup if x < config.warmup else 1.0


@SCHEDULERS.register("warmup_linear", config=WarmupConfig)
def warmup_linear(
    config: WarmupConfig, step: int, total_steps: int, epoch: int, epochs: int
) -> float:
    """Rise linearly, then fall linearly to 0 at the last step."""
    x = step / total_steps
    return x / config.warmup if x < config.warmup else max((x - 1.0) / (config.warmup - 1.0), 0.0)


@dataclasses.dataclass(frozen=True)
class CosineConfig:
    """Keys of ``cosine``."""

    floor: float = 0.0  # the factor at the end (η_min / η)


@SCHEDULERS.register("cosine", config=CosineConfig)
def cosine(config: CosineConfig, step: int, total_steps: int, epoch: int, epochs: int) -> float:
    """Fall from 1 to ``floor`` along a half cosine, changing once per epoch."""
    return config.floor + (1.0 - config.floor) * 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """Keys of ``step``."""

    every: int = 30  # epochs between drops
    gamma: float = 0.1  # factor of each drop

    def __post_init__(self) -> None:
        """Refuse an interval below one epoch."""
        if self.every < 1:
            raise UserError(f"schedule.every={self.every} is not accepted; at least 1 is needed.")


@SCHEDULERS.register("step", config=StepConfig)
def step_decay(config: StepConfig, step: int, total_steps: int, epoch: int, epochs: int) -> float:
    """Multiply by ``gamma`` after every ``every`` epochs."""
    return config.gamma ** (epoch // config.every)
