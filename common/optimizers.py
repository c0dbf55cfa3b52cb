"""Optimisers by name: BertAdam as the CLIP hashing papers use it, and PyTorch's.

Every entry is called as ``target(parameters, lr, config)``. Learning rates follow a schedule
(:mod:`common.schedules`) that multiplies ``lr`` before each step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from common.registry import OPTIMIZERS


class BertAdam(Optimizer):
    r"""Adam without bias correction, with decoupled weight decay and clipping per parameter tensor.

    For every tensor p with gradient g:
    ``g ← g · min(1, c / (‖g‖₂ + 1e-6))``, ``m ← β₁ m + (1-β₁) g``, ``v ← β₂ v + (1-β₂) g²``,
    ``p ← p - lr · (m / (√v + ε) + λ p)``.

    Decay reaches every tensor (biases and norms too); c ≤ 0 switches clipping off. Tensors without
    gradient are left alone; gradients are overwritten by a step. Source: the optimiser of BERT's
    first PyTorch port, as shipped with CLIP4Clip and the CLIP hashing repositories.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 0.2,
        max_grad_norm: float = 1.0,
    ) -> None:
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "max_grad_norm": max_grad_norm,
        }  # fmt: skip
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step; ``closure`` may recompute the loss first, as in PyTorch's optimisers."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._step_group(group, parameters, [p.grad for p in parameters])
        return loss

    def _step_group(
        self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]
    ) -> None:
        beta1, beta2 = group["betas"]
        for p in parameters:
            if not self.state[p]:
                self.state[p]["m"] = torch.zeros_like(p)
                self.state[p]["v"] = torch.zeros_like(p)
        moments = [self.state[p]["m"] for p in parameters]
        variances = [self.state[p]["v"] for p in parameters]
        if group["max_grad_norm"] > 0:
            norms = list(torch._foreach_norm(gradients))
            torch._foreach_add_(norms, 1e-6)
            torch._foreach_reciprocal_(norms)
            torch._foreach_mul_(norms, group["max_grad_norm"])
            torch._foreach_clamp_max_(norms, 1.0)
            torch._foreach_mul_(gradients, norms)
        torch._foreach_lerp_(moments, gradients, 1 - beta1)
        torch._foreach_mul_(variances, beta2)
        torch._foreach_addcmul_(variances, gradients, gradients, 1 - beta2)
        # the gradients are reused as buffers: fresh memory would cost more than the sums
        updates = gradients
        torch._foreach_copy_(updates, variances)
        torch._foreach_sqrt_(updates)
        torch._foreach_add_(updates, group["eps"])
        torch._foreach_reciprocal_(updates)
        torch._foreach_mul_(updates, moments)
        if group["weight_decay"] != 0:
            torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
        torch._foreach_add_(parameters, updates, alpha=-group["lr"])


@dataclasses.dataclass(frozen=True)
class BertAdamConfig:
    """Keys of ``optim`` with ``name: bertadam``; the papers' values."""

    beta1: float = 0.9  # decay of the mean of gradients
    beta2: float = 0.98  # decay of the mean of their squares
    eps: float = 1e-6  # added to the root of the latter
    weight_decay: float = 0.2  # of every tensor, times the rate
    max_grad_norm: float = 1.0  # per tensor; 0 = no clipping


@OPTIMIZERS.register("bertadam", config=BertAdamConfig)
def bertadam(parameters: Iterable[Tensor], lr: float, config: BertAdamConfig) -> Optimizer:
    """BertAdam: no bias correction, per-tensor clipping, decay on every tensor."""
    betas = (config.beta1, config.beta2)
    return BertAdam(parameters, lr, betas, config.eps, config.weight_decay, config.max_grad_norm)


@dataclasses.dataclass(frozen=True)
class AdamConfig:
    """Keys of ``optim`` with ``name: adam`` (decay added to the gradient)."""

    beta1: float = 0.9  # decay of the mean of gradients
    beta2: float = 0.999  # decay of the mean of their squares
    eps: float = 1e-8  # added to the root of the latter
    weight_decay: float = 0.0  # added to the gradient


@OPTIMIZERS.register("adam", config=AdamConfig)
def adam(parameters: Iterable[Tensor], lr: float, config: AdamConfig) -> Optimizer:
    """Adam (torch.optim.Adam)."""
    return torch.optim.Adam(
        parameters, lr, (config.beta1, config.beta2), config.eps, config.weight_decay
    )


@dataclasses.dataclass(frozen=True)
class AdamWConfig(AdamConfig):
    """Keys of ``optim`` with ``name: adamw`` (decoupled decay)."""

    weight_decay: float = 0.01  # of every tensor, times the rate


@OPTIMIZERS.register("adamw", config=AdamWConfig)
def adamw(parameters: Iterable[Tensor], lr: float, config: AdamWConfig) -> Optimizer:
    """AdamW (torch.optim.AdamW)."""
    return torch.optim.AdamW(
        parameters, lr, (config.beta1, config.beta2), config.eps, config.weight_decay
    )


@dataclasses.dataclass(frozen=True)
class SGDConfig:
    """Keys of ``optim`` with ``name: sgd``."""

    momentum: float = 0.0  # share of the last step that is kept
    weight_decay: float = 0.0  # added to the gradient
    nesterov: bool = False  # look ahead along the momentum


@OPTIMIZERS.register("sgd", config=SGDConfig)
def sgd(parameters: Iterable[Tensor], lr: float, config: SGDConfig) -> Optimizer:
    """Stochastic gradient descent (torch.optim.SGD)."""
    return torch.optim.SGD(
        parameters, lr, config.momentum, weight_decay=config.weight_decay, nesterov=config.nesterov
    )


@dataclasses.dataclass(frozen=True)
class RMSpropConfig:
    """Keys of ``optim`` with ``name: rmsprop``."""

    alpha: float = 0.99  # decay of the mean of squared gradients
    eps: float = 1e-8  # added to its root
    momentum: float = 0.0  # share of the last step that is kept
    weight_decay: float = 0.0  # added to the gradient


@OPTIMIZERS.register("rmsprop", config=RMSpropConfig)
def rmsprop(parameters: Iterable[Tensor], lr: float, config: RMSpropConfig) -> Optimizer:
    """RMSprop (torch.optim.RMSprop)."""
    return torch.optim.RMSprop(
        parameters, lr, config.alpha, config.eps, config.weight_decay, config.momentum
    )
