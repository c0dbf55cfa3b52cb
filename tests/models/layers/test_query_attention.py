"""Attention of queries to tokens: the equation's, with the weights' dropout in training alone."""

from __future__ import annotations

import math

import torch
from torch import nn

from models.layers.query_attention import QueryAttention


def attention_of(dropout=0.0):
    torch.manual_seed(0)
    attention = QueryAttention(8, 2, dropout).double()
    nn.init.normal_(attention.in_proj_bias)
    return attention


def draws(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def by_the_equation(attention, x, tokens):
    """Return the result head by head."""
    w, b = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    q = x @ w[0].T + b[0]
    k, v = (tokens @ w[i].T + b[i] for i in (1, 2))
    heads = []
    for head in range(2):
        at = slice(4 * head, 4 * head + 4)
        heads.append((q[..., at] @ k[..., at].mT / math.sqrt(4)).softmax(2) @ v[..., at])
    return attention.out_proj(torch.cat(heads, 2))


def test_it_is_that_of_the_equation_and_gradients_follow():
    attention, x, tokens = attention_of(), draws(3, 4, 8), draws(3, 5, 8)
    weight = draws(3, 4, 8)
    for other in (x, tokens):
        leaves = [x.requires_grad_(), other.requires_grad_(), *attention.parameters()]
        ours, expected = attention.attend(x, other), by_the_equation(attention, x, other)
        torch.testing.assert_close(ours, expected)
        gradients = (torch.autograd.grad((y * weight).sum(), leaves) for y in (ours, expected))
        for one, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(one, theirs)


def test_queries_that_all_rows_share_are_seen_by_each():
    attention, x, tokens = attention_of().eval(), draws(1, 4, 8), draws(3, 5, 8)
    shared, copied = x.expand(3, -1, -1), x.repeat(3, 1, 1)
    with torch.no_grad():
        for other in (tokens, None):
            torch.testing.assert_close(
                attention.attend(shared, shared if other is None else other),
                by_the_equation(attention, copied, copied if other is None else other),
            )


def test_dropout_is_drawn_in_training_alone():
    attention, x, tokens = attention_of(0.3), draws(3, 4, 8), draws(3, 5, 8)
    first, second = (attention.train().attend(x, tokens) for _ in range(2))
    assert not torch.equal(first, second)
    torch.testing.assert_close(
        attention.eval().attend(x, tokens), by_the_equation(attention, x, tokens)
    )
