"""Soft mixture of experts: J. Puigcerver, C. Riquelme, B. Mustafa, N. Houlsby, ICLR 2024.

Every expert n works on p slots, each a weighted mean of all tokens, and every token gets a weighted
mean of all results: nothing is dropped, and no routing is discrete. With x [L,F], Φ [F,n,p]::

    logits l_{mnp} = x_m · Φ_np
    slot s_np = Σ_m softmax_m(l)_{mnp} x_m         y_m = Σ_np softmax_np(l)_{mnp} (W_n s_np + b_n)

Slots are kept in the order p, n here: those of one expert are then rows at equal steps, matrices
that can be multiplied as they lie.

:func:`feed_forward` puts a layer, ReLU and dropout before the mixture. On the CPU its forward and
backward are written out: no slots are copied, the two gradients of the tokens are summed inside a
product, that of each expert's weight is a product of its own (three quarters of the time of a
batched one), and the backward pass overwrites what the forward pass kept. In UMoED such a tensor
has 32 MiB, from which size on the C library takes memory from the system anew each time: 8 ms of
page faults for each of thirty.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.dropout import PART, thin_relu_, written_out


class SoftMoE(nn.Module):
    """n linear experts of width F → D with p slots each: [B,L,F] → [B,L,D]."""

    def __init__(self, width: int, out_width: int, experts: int, slots: int) -> None:
        """Initialise uniformly, as the released UMoED does.

        Its bounds are 1/√fan with PyTorch's fan of a three-axis tensor, the product of the last two
        axes: 1/√(n p) for Φ and 1/√(F D) for the experts, which is much narrower than for a linear
        layer of its own.
        """
        super().__init__()
        self.phi = nn.Parameter(torch.empty(width, experts, slots))
        self.weight = nn.Parameter(torch.empty(experts, width, out_width))
        self.bias = nn.Parameter(torch.empty(experts, out_width))
        nn.init.uniform_(self.phi, -1 / math.sqrt(experts * slots), 1 / math.sqrt(experts * slots))
        bound = 1 / math.sqrt(width * out_width)
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return y [B,L,D] for tokens [B,L,F]."""
        logits = tokens @ slot_matrix(self.phi)  # [B,L,pn]
        slots = _by_expert(logits.softmax(1).mT @ tokens, len(self.weight))
        made = torch.baddbmm(self.bias[:, None], slots, self.weight)  # [n,Bp,D]
        return logits.softmax(2) @ made.transpose(0, 1).reshape(len(tokens), -1, made.shape[2])


def feed_forward(x: Tensor, linear: nn.Linear, moe: SoftMoE, dropout: float) -> Tensor:
    """Return moe(dropout(ReLU(linear x))) [B,L,D] of x [B,L,W]; only one backward pass."""
    if not written_out(x):
        y: Tensor = moe(F.dropout(F.relu(linear(x)), dropout))
    else:
        parts = linear.weight, linear.bias, slot_matrix(moe.phi), moe.weight, moe.bias
        y = _FeedForward.apply(x, dropout, *parts)
    return y


def slot_matrix(phi: Tensor) -> Tensor:
    """Return Φ [F,n,p] as a matrix [F,pn]."""
    return phi.transpose(1, 2).flatten(1)


def _by_expert(slots: Tensor, experts: int) -> Tensor:
    """Return a view [n,Bp,F] of slots [B,pn,F]."""
    return slots.reshape(-1, experts, slots.shape[2]).transpose(0, 1)


class _FeedForward(torch.autograd.Function):
    """The equations above, and their gradients; h is what enters the mixture, [B,L,F]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dropout: float, matrix: Tensor, offset: Tensor,
        phi: Tensor, weight: Tensor, bias: Tensor,
    ) -> Tensor:  # fmt: skip
        inner = torch.addmm(offset, x.flatten(0, 1), matrix.mT)
        ctx.scale = thin_relu_(inner, dropout)
        h = inner.unflatten(0, x.shape[:2])
        logits = h @ phi
        dispatch, combine = logits.softmax(1), logits.softmax(2)
        slots = dispatch.mT @ h  # [B,pn,F]
        made = h.new_empty(*slots.shape[:2], weight.shape[2])  # [B,pn,D]
        out = _by_expert(made, len(weight))
        torch.baddbmm(bias[:, None], _by_expert(slots, len(weight)), weight, out=out)
        ctx.save_for_backward(x, matrix, phi, weight, dispatch, combine, made)
        ctx.overwritten = h, slots
        return combine @ made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.overwritten is None:
            raise RuntimeError("the memory of this forward pass was used by a backward pass")
        x, matrix, phi, weight, dispatch, combine, made = ctx.saved_tensors
        (h, slots), ctx.overwritten = ctx.overwritten, None
        d_made = _by_expert(combine.mT @ gradients[0], len(weight))  # [n,Bp,D]
        d_weight = torch.empty_like(weight)
        for own, slot, d_own in zip(d_weight, _by_expert(slots, len(weight)), d_made, strict=True):
            torch.mm(slot.mT, d_own, out=own)
        d_slots = slots
        torch.bmm(d_made, weight.mT, out=_by_expert(d_slots, len(weight)))
        d_logits = _softmax_gradient(gradients[0] @ made.mT, combine, 2)
        d_logits += _softmax_gradient(h @ d_slots.mT, dispatch, 1)
        flat = h.flatten(0, 1)
        d_phi = (d_logits.flatten(0, 1).mT @ flat).mT
        count = max(PART // h[0].numel(), 1)
        for rows in (slice(first, first + count) for first in range(0, len(h), count)):
            change = (d_logits[rows] @ phi.mT).baddbmm_(dispatch[rows], d_slots[rows])
            # above 0 is what was neither dropped nor negative
            torch.ops.aten.threshold_backward.grad_input(change, h[rows], 0, grad_input=h[rows])
        d_inner = flat if ctx.scale == 1 else flat.mul_(ctx.scale)
        d_x = (d_inner @ matrix).view_as(x)
        d_matrix = d_inner.mT @ x.flatten(0, 1)
        return d_x, None, d_matrix, d_inner.sum(0), d_phi, d_weight, d_made.sum(1)


def _softmax_gradient(gradient: Tensor, result: Tensor, axis: int) -> Tensor:
    """Return the gradient of what softmax along the axis was taken of."""
    change: Tensor = torch.ops.aten._softmax_backward_data(gradient, result, axis, result.dtype)
    return change
