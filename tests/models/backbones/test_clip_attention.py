"""The parts of CLIP's block against PyTorch's attention, the formula, and open_clip's block."""

import pytest
import torch
from torch import nn

from models.backbones.clip_attention import QuickGELU, SelfAttention, cut_heads, quick_gelu
from models.backbones.open_clip_towers import with_lean_blocks

WIDTH, HEADS = 16, 4


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same_with_gradients(ours, theirs, parameters):
    """Both results, and the gradients of a random sum of each."""
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)
    upstream = draws(*ours.shape, seed=9)
    gradients = (torch.autograd.grad(y, parameters, upstream) for y in (ours, theirs))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


def causal(length):
    return torch.full((length, length), -torch.inf, dtype=torch.float64).triu(1)


@pytest.mark.parametrize("kind", ["none", "causal", "per row"])
@pytest.mark.parametrize(("rows", "length"), [(3, 5), (1, 1)])
def test_attention_is_pytorch_s(rows, length, kind):
    torch.manual_seed(0)
    attention = SelfAttention(WIDTH, HEADS).double()
    mask = {
        "none": None,
        "causal": causal(length),
        "per row": draws(rows * HEADS, length, length, seed=4),
    }[kind]
    x = draws(rows, length, WIDTH).requires_grad_()
    theirs, _ = nn.MultiheadAttention.forward(
        attention, x, x, x, need_weights=False, attn_mask=mask
    )
    same_with_gradients(attention.attend(x, mask), theirs, [x, *attention.parameters()])


def test_attention_refuses_what_it_does_not_do():
    attention, x = SelfAttention(WIDTH, HEADS), torch.zeros(1, 2, WIDTH)
    with pytest.raises(ValueError, match="to itself"):
        attention(x, x.clone(), x)
    with pytest.raises(ValueError, match="no weights"):
        attention(x, x, x, need_weights=True)


def test_quick_gelu_is_its_formula():
    x = torch.cat([draws(50) * 4, torch.tensor([0.0, -300.0, 300.0]).double()]).requires_grad_()
    same_with_gradients(quick_gelu(x), x * torch.sigmoid(1.702 * x), [x])
    assert torch.autograd.gradcheck(quick_gelu, draws(6).requires_grad_())


def test_heads_are_cut_as_written():
    x = draws(2, 3, 2 * WIDTH).requires_grad_()
    first, second = cut_heads(x, 2, HEADS)
    for part, found in ((0, first), (1, second)):
        for head in range(HEADS):
            start = part * WIDTH + head * WIDTH // HEADS
            expected = x[:, :, start : start + WIDTH // HEADS]
            assert torch.equal(found[:, head], expected)
    assert torch.autograd.gradcheck(lambda t: cut_heads(t, 2, HEADS), x)


@pytest.mark.parametrize("mask", [None, causal(5)])
def test_open_clip_s_block_computes_the_same_with_our_parts(mask):
    from open_clip.transformer import QuickGELU as UsualQuickGELU
    from open_clip.transformer import ResidualAttentionBlock

    torch.manual_seed(0)
    usual, lean = (
        ResidualAttentionBlock(WIDTH, HEADS, act_layer=UsualQuickGELU).double() for _ in range(2)
    )
    lean.load_state_dict(usual.state_dict())
    names = list(usual.state_dict())
    with_lean_blocks(lean)
    assert isinstance(lean.attn, SelfAttention)
    assert isinstance(lean.mlp.gelu, QuickGELU)
    assert list(lean.state_dict()) == names
    x = draws(3, 5, WIDTH)
    mine, other = lean(x, attn_mask=mask), usual(x, attn_mask=mask)
    torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-13)
    upstream = draws(3, 5, WIDTH, seed=9)
    mine.backward(upstream)
    other.backward(upstream)
    for ours, theirs in zip(lean.parameters(), usual.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-11, atol=1e-13)


def test_blocks_with_the_exact_gelu_keep_it():
    from open_clip.transformer import ResidualAttentionBlock

    block = with_lean_blocks(ResidualAttentionBlock(WIDTH, HEADS))
    assert isinstance(block.mlp.gelu, nn.GELU)
    assert isinstance(block.attn, SelfAttention)
