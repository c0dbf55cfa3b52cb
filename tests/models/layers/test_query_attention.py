"""Attention of queries: PyTorch's without dropout, the equation's with it; lots of rows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from models.layers.dropout import noise
from models.layers.query_attention import QueryAttention


def attention_of(dropout=0.0):
    torch.manual_seed(0)
    attention = QueryAttention(8, 2, dropout=dropout, batch_first=True).double()
    nn.init.normal_(attention.in_proj_bias)
    return attention


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def test_without_dropout_it_is_that_of_pytorch():
    attention = attention_of()
    x, tokens = drawn(3, 4, 8), drawn(3, 5, 8)
    torch.testing.assert_close(attention.within(x, 3), attention(x, x, x)[0])
    torch.testing.assert_close(attention.across(x, [tokens]), attention(x, tokens, tokens)[0])


def test_lots_of_different_lengths_are_each_their_own():
    attention = attention_of()
    x, lots = drawn(6, 4, 8), [drawn(3, 5, 8), drawn(1, 1, 8), drawn(2, 7, 8)]
    expected = [attention(q, t, t)[0] for q, t in zip(x.split([3, 1, 2]), lots, strict=True)]
    torch.testing.assert_close(attention.across(x, lots), torch.cat(expected))


def by_the_equation(attention, x, tokens, rows, thin):
    """Return the result head by head, with the weights multiplied by given noise."""
    w, b = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    q = (x @ w[0].T + b[0]).expand(rows, -1, -1)
    k, v = ((tokens @ w[i].T + b[i]).expand(rows, -1, -1) for i in (1, 2))
    heads = []
    for head in range(2):
        at = slice(4 * head, 4 * head + 4)
        weight = (q[..., at] @ k[..., at].mT / math.sqrt(4)).softmax(2)
        heads.append((weight * thin[:, head]) @ v[..., at])
    return attention.out_proj(torch.cat(heads, 2))


@pytest.mark.parametrize("same", [False, True])
def test_dropout_multiplies_the_weights_and_gradients_follow(same):
    attention = attention_of(0.3).train()
    x = drawn(1 if same else 3, 4, 8).requires_grad_()
    tokens, weight = drawn(3, 5, 8).requires_grad_(), drawn(3, 4, 8)
    for other, length in ((None, 4), (tokens, 5)):
        torch.manual_seed(2)
        found = attention.within(x, 3) if other is None else attention.across(x, [other])
        torch.manual_seed(2)
        thin = noise((3, 2, 4, length), 0.3, x)
        expected = by_the_equation(attention, x, x if other is None else other, 3, thin)
        torch.testing.assert_close(found, expected)
        leaves = [x, *attention.parameters()] + ([] if other is None else [other])
        for ours, theirs in zip(
            torch.autograd.grad((found * weight).sum(), leaves),
            torch.autograd.grad((expected * weight).sum(), leaves),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs)


def test_queries_that_all_rows_share_are_seen_by_each():
    attention, x, tokens = attention_of(), drawn(1, 4, 8), drawn(3, 5, 8)
    assert len(attention.within(x, 3)) == 1
    torch.testing.assert_close(
        attention.across(x, [tokens]), attention.across(x.repeat(3, 1, 1), [tokens])
    )
