r"""Self-attention and QuickGELU of CLIP's transformer block, with less traffic to memory.

Parameters and results are those of PyTorch's multi-head attention and of x σ(1.702 x), by
D. Hendrycks and K. Gimpel, arXiv:1606.08415, section 2. With z = 1.702 x::

    x σ(1.702 x) = silu(z) / 1.702          its derivative is silu'(z)

so that one kernel goes backward and z alone is kept. Attention cuts the projected rows into heads
with one copy forward and one backward, where autograd fills a tensor of zeros for each of q, k, v.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STEEPNESS = 1.702


class SelfAttention(nn.MultiheadAttention):
    """PyTorch's multi-head attention as self-attention; ``batch_first``, without dropout."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads, batch_first=True)

    @classmethod
    def like(cls, attention: nn.MultiheadAttention) -> SelfAttention:
        """Return one that takes over the parameters of ``attention``."""
        with torch.device("meta"):
            replacement = cls(attention.embed_dim, attention.num_heads)
        replacement.load_state_dict(attention.state_dict(), assign=True)
        return replacement

    def attend(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the self-attention of tokens.

        Args:
            x: [B,L,D].
            mask: added to the logits: [L,L], or [B*heads,L,L]; None hides nothing.

        Returns:
            [B,L,D].
        """
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # [B,L,3D]
        query, key, value = cut_heads(projected, 3, self.num_heads)
        if mask is not None and mask.dim() == 3:
            mask = mask.unflatten(0, (len(x), self.num_heads))
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def forward(  # type: ignore[override]  # the part of PyTorch's signature that CLIP uses
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Return :meth:`attend` of the query; ``key`` and ``value`` are the query itself."""
        if need_weights or key is not query or value is not query:
            raise ValueError("this attention is of a row to itself, and gives no weights")
        return self.attend(query, attn_mask), None


class QuickGELU(nn.Module):
    """``x * sigmoid(1.702 * x)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return it, of the shape of ``x``."""
        return quick_gelu(x)


def quick_gelu(x: Tensor) -> Tensor:
    """Return ``x * sigmoid(1.702 * x)``."""
    return _QuickGELU.apply(x)


class _QuickGELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        z = x * _STEEPNESS
        ctx.save_for_backward(z)
        return F.silu(z).mul_(1 / _STEEPNESS)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return torch.ops.aten.silu_backward(gradients[0], z)


def cut_heads(x: Tensor, count: int, heads: int) -> tuple[Tensor, ...]:
    """Cut [B,M,count·D] into count tensors [B,heads,M,D/heads], each in one piece."""
    return _Heads.apply(x, count, heads)


class _Heads(torch.autograd.Function):
    """The cut of :func:`cut_heads`; its backward pass makes one copy, where autograd makes two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int, heads: int) -> tuple[Tensor, ...]:
        ctx.count = count
        cut = x.unflatten(2, (count, heads, -1)).permute(2, 0, 3, 1, 4)  # [count,B,H,M,D/H]
        return tuple(part.contiguous() for part in cut)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows, heads, queries, width = gradients[0].shape
        joined = gradients[0].new_empty(rows, queries, ctx.count, heads, width)
        for part, gradient in zip(joined.unbind(2), gradients, strict=True):
            part.copy_(gradient.transpose(1, 2))
        return joined.flatten(2), None, None
