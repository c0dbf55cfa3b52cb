"""Soft mixture of experts: J. Puigcerver, C. Riquelme, B. Mustafa, N. Houlsby, ICLR 2024.

Every expert n works on p slots, each a weighted mean of all tokens, and every token gets a weighted
mean of all results: nothing is dropped, and no routing is discrete. With x [L,F], Φ [F,n,p]::

    logits l_{mnp} = x_m · Φ_np
    slot s_np = Σ_m softmax_m(l)_{mnp} x_m         y_m = Σ_np softmax_np(l)_{mnp} (W_n s_np + b_n)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


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
        rows, experts = len(tokens), len(self.weight)
        logits = tokens @ self.phi.flatten(1)  # [B,L,np]
        slots = logits.softmax(1).mT @ tokens  # [B,np,F]
        by_expert = slots.unflatten(1, (experts, -1)).transpose(0, 1).flatten(1, 2)  # [n,Bp,F]
        results = torch.baddbmm(self.bias[:, None], by_expert, self.weight)  # [n,Bp,D]
        results = results.unflatten(1, (rows, -1)).transpose(0, 1).flatten(1, 2)  # [B,np,D]
        return logits.softmax(2) @ results
