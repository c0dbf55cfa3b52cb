"""Attention of learned queries to the tokens of their row, for lots of rows with different lengths.

All rows pass the layers' matrices as one, so that a weight has one gradient and not one of each
lot. Where all rows still have the same queries, these are projected once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.clip_attention import cut_heads
from models.layers.dropout import noise


class QueryAttention(nn.MultiheadAttention):
    """Multi-head attention with the parameters of PyTorch's, whose dropout is cheap on the CPU.

    ``within`` and ``across`` take the place of ``forward``.
    """

    def within(self, x: Tensor, rows: int) -> Tensor:
        """Return what queries see in each other.

        Args:
            x: [R,M,D], or [1,M,D] if all rows have the same.
            rows: R.

        Returns:
            [R,M,D]; without dropout as many rows as x.
        """
        q, k, v = cut_heads(F.linear(x, self.in_proj_weight, self.in_proj_bias), 3, self.num_heads)
        return self.out_proj(self._seen(q, k, v, rows).transpose(1, 2).flatten(2))

    def across(self, x: Tensor, tokens: Sequence[Tensor]) -> Tensor:
        """Return what queries see in tokens.

        Args:
            x: [R,M,D], or [1,M,D] if all rows have the same.
            tokens: lots of rows, each [B,L,D] with a length of its own; R rows in all.

        Returns:
            [R,M,D].
        """
        width, heads = self.embed_dim, self.num_heads
        own, other = self.in_proj_weight.split([width, 2 * width])
        own_bias, other_bias = self.in_proj_bias.split([width, 2 * width])
        (q,) = cut_heads(F.linear(x, own, own_bias), 1, heads)
        flat = F.linear(torch.cat([lot.flatten(0, 1) for lot in tokens]), other, other_bias)
        rows = [len(lot) for lot in tokens]
        queries = q.expand(sum(rows), -1, -1, -1).split(rows)
        pairs = flat.split([lot.shape[0] * lot.shape[1] for lot in tokens])
        seen = []
        for lot, query, pair in zip(tokens, queries, pairs, strict=True):
            k, v = cut_heads(pair.view(*lot.shape[:2], -1), 2, heads)
            seen.append(self._seen(query, k, v, len(lot)).transpose(1, 2))
        return self.out_proj(torch.cat(seen).flatten(2))

    def _seen(self, q: Tensor, k: Tensor, v: Tensor, rows: int) -> Tensor:
        """Return dropout(softmax(q kᵀ / √d)) v, [R,H,M,d]."""
        dropout = self.dropout if self.training else 0.0
        if dropout == 0:
            return F.scaled_dot_product_attention(q, k, v)
        if q.device.type != "cpu":
            q, k, v = (t.expand(rows, -1, -1, -1) for t in (q, k, v))
            return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        weight = (q @ k.mT).mul_(q.shape[3] ** -0.5).softmax(3)
        return (weight * noise((rows, *weight.shape[1:]), dropout, weight)) @ v
