"""Attention of learned queries to each other and to the tokens of their row (UMoED)."""

from __future__ import annotations

from torch import Tensor, nn


class QueryAttention(nn.MultiheadAttention):
    """PyTorch's multi-head attention, batch first, without its weights."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        """Initialise as PyTorch does; ``dropout`` is of the attention weights."""
        super().__init__(width, heads, dropout=dropout, batch_first=True)

    def attend(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Return what queries [B,M,D] see in tokens [B,L,D], [B,M,D]."""
        return self(queries, tokens, tokens, need_weights=False)[0]
