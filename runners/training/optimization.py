"""From parameter groups to optimisers whose learning rates follow their schedules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from common.config.run_config import Component, OptimGroup
from models.base import HashLoss, HashModel, Progress
from utils.errors import UserError


@dataclasses.dataclass
class Optimization:
    """All optimisers of a run; groups that share optimiser and settings share one object.

    Attributes:
        optimizers: in a fixed order; every ``param_groups`` entry carries its group's ``name``.
        settings: group name → settings, for groups that have parameters.
    """

    optimizers: list[Optimizer]
    settings: Mapping[str, OptimGroup]

    @classmethod
    def build(
        cls, settings: Mapping[str, OptimGroup], model: HashModel, loss: HashLoss
    ) -> Optimization:
        """Put every trainable parameter of ``model`` and ``loss`` under its group's settings.

        Raises:
            UserError: a group that was not declared at registration, nothing to train, or a
                trainable parameter that is in no group.
        """
        parameters = {**model.param_groups(), **loss.param_groups()}
        undeclared = set(parameters) - set(settings)
        if undeclared:
            raise UserError(
                f"Parameter group '{sorted(undeclared)[0]}' was not declared where model "
                f"'{type(model).__name__}' or loss '{type(loss).__name__}' is "
                "registered; declare it as groups={'name': {...}}."
            )
        _check_complete(parameters, model, loss)
        members_of: dict[str, tuple[Component, list[dict[str, Any]]]] = {}
        for name, members in parameters.items():
            if members:
                group = settings[name]
                entry = {"params": members, "lr": group.lr, "name": name}
                key = f"{group.optimizer.name} {group.optimizer.config}"
                members_of.setdefault(key, (group.optimizer, []))[1].append(entry)
        if not members_of:
            raise UserError(
                "There is nothing to train: model and loss have no trainable parameter; use "
                "runner=fit for methods without gradient."
            )
        optimizers = []
        for component, groups in members_of.values():
            try:
                optimizer = component.entry.target(groups, groups[0]["lr"], component.config)
            except ValueError as error:  # torch's own checks, e.g. of beta1
                raise UserError(f"Optimizer '{component.name}' refuses: {error}.") from error
            optimizers.append(optimizer)
        return cls(optimizers, {name: settings[name] for name in parameters})

    def set_rates(self, progress: Progress) -> dict[str, float]:
        """Set every group's learning rate for the coming step; return them by group name."""
        rates = {}
        for optimizer in self.optimizers:
            for entry in optimizer.param_groups:
                group = self.settings[entry["name"]]
                factor = group.schedule.entry.target(
                    group.schedule.config, progress.step, progress.total_steps,
                    progress.epoch, progress.epochs,
                )  # fmt: skip
                entry["lr"] = rates[entry["name"]] = group.lr * factor
        return rates

    def step(self) -> None:
        """Step every optimiser and clear the gradients."""
        for optimizer in self.optimizers:
            optimizer.step()
        self.clear()

    def clear(self) -> None:
        """Clear the gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)


def _check_complete(
    groups: Mapping[str, list[nn.Parameter]], model: HashModel, loss: HashLoss
) -> None:
    grouped = {id(parameter) for members in groups.values() for parameter in members}
    for owner in (model, loss):
        for name, parameter in owner.named_parameters():
            if parameter.requires_grad and id(parameter) not in grouped:
                raise UserError(
                    f"Parameter '{name}' of {type(owner).__name__} is trainable but in none of its "
                    f"parameter groups ({', '.join(groups)}), so that nothing would ever train it."
                )
