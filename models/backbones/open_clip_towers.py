"""Pooled and token features of each kind of open_clip tower.

Every function here takes a tower of open_clip and gives :class:`common.batch.Features`, none of
them L2-normalised. B rows, L tokens, D the joint width, W the tower's own width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from common.batch import Features
from models.backbones.clip_attention import QuickGELU, SelfAttention
from models.backbones.towers import map_to_tokens

ImageEncode = Callable[[Any, Tensor, bool], Features]
"""A tower, pictures [B,3,H,W] and whether token features are wanted, to features."""

TextEncode = Callable[[Any, Tensor, Tensor, bool], Features]
"""A tower, ids [B,L], the mask of hidden ones [B,L] and whether tokens are wanted, likewise."""


def image_encode_for(visual: Any) -> ImageEncode:
    """Return the function that fits an image tower of open_clip."""
    if hasattr(visual, "output_tokens"):
        visual.output_tokens = True
    kinds = {
        "VisionTransformer": vision_transformer,
        "TimmModel": timm_tower,
        "ModifiedResNet": modified_resnet,
    }
    return kinds[type(visual).__name__]


def vision_transformer(tower: Any, image: Tensor, tokens: bool) -> Features:
    """OpenAI's ViT: ``ln_post`` and the projection on every token, the class token pooled.

    The class token is not among the tokens: 49 patches for ViT-B/32 at 224 px. The tower's
    ``output_tokens`` is True (:func:`image_encode_for` sets it).
    """
    pooled, patches = tower(image)  # [B,D], [B,L,W]
    if not tokens:
        return Features(pooled)
    if tower.final_ln_after_pool and tower.attn_pool is None:
        patches = tower.ln_post(patches)
    return Features(pooled, patches if tower.proj is None else patches @ tower.proj)  # [B,L,D]


def modified_resnet(tower: Any, image: Tensor, tokens: bool) -> Features:
    """OpenAI's ResNet: pooled by attention; a token is a position's value and output projection.

    Projecting positions without the attention is that of MaskCLIP (Zhou et al., ECCV 2022, §3.2).
    """
    x = tower.layer4(tower.layer3(tower.layer2(tower.layer1(tower.stem(image)))))  # [B,W,h,w]
    pooled = tower.attnpool(x)
    if not tokens:
        return Features(pooled)
    pool = tower.attnpool
    return Features(pooled, pool.c_proj(pool.v_proj(map_to_tokens(x))))


def timm_tower(tower: Any, image: Tensor, tokens: bool) -> Features:
    """A timm network: each position through the projection of the pooled feature.

    With average pooling and a linear projection the mean over tokens is the pooled feature. Where
    the head itself pools by attention, tokens are the trunk's own.
    """
    x = tower.trunk.forward_features(image)
    pooled = tower.head(tower.trunk.forward_head(x))  # [B,D]
    if not tokens:
        return Features(pooled)
    grid = timm_tokens(tower.trunk, x)  # [B,L,W]
    head = tower.head
    if len(head) and not hasattr(head, "pool"):
        grid = head(grid)  # [B,L,D]
    return Features(pooled, grid)


def timm_tokens(trunk: Any, features: Tensor) -> Tensor:
    """Return a timm network's ``forward_features`` as tokens [B,L,W], without class tokens."""
    if features.dim() == 3:
        return features[:, getattr(trunk, "num_prefix_tokens", 0) :]
    if getattr(trunk, "output_fmt", "NCHW") == "NHWC":
        return features.flatten(1, 2)
    return map_to_tokens(features)


def with_lean_blocks(network: Any) -> Any:
    """Give OpenAI's transformer blocks our attention and QuickGELU; parameters keep their names."""
    from open_clip.transformer import QuickGELU as UsualQuickGELU
    from open_clip.transformer import ResidualAttentionBlock

    for block in network.modules():
        if not isinstance(block, ResidualAttentionBlock) or hasattr(block, "ln_1_kv"):
            continue
        if block.attn.batch_first:
            block.attn = SelfAttention.like(block.attn)
        if isinstance(block.mlp.gelu, UsualQuickGELU):
            block.mlp.gelu = QuickGELU()
    return network


class ClipText:
    """OpenAI's text transformer: ``ln_final`` and the projection on every token, EOS pooled.

    The sequence may be shorter than the trained context: the first L positional embeddings are
    used and the causal mask is cut to L x L.

    The mask handed on to heads hides padding and EOS (its feature is the pooled one) but not SOS.
    """

    def __init__(self, padding_mask: bool, eos_id: int) -> None:
        """State whether padding is hidden inside the transformer too, and the id of EOS."""
        self.padding_mask = padding_mask
        self.eos_id = eos_id

    def __call__(self, tower: Any, ids: Tensor, mask: Tensor, tokens: bool) -> Features:
        """Encode ids [B,L]."""
        from open_clip.transformer import text_global_pool

        if tower.cls_emb is not None:  # CoCa's appended class token; it has no token features
            return Features(tower(ids))
        length = ids.shape[1]
        x = tower.token_embedding(ids) + tower.positional_embedding[:length]  # [B,L,W]
        x = tower.transformer(x, attn_mask=self._attention_mask(tower, mask, x.dtype))
        x = tower.ln_final(x)
        if tokens:
            x = self._project(tower, x)  # [B,L,D]
        pooled = text_global_pool(x, ids, tower.pool_type, eos_token_id=tower.eos_id)
        if not tokens:
            return Features(self._project(tower, pooled))
        return Features(pooled, x, mask | (ids == self.eos_id))

    @staticmethod
    def _project(tower: Any, x: Tensor) -> Tensor:
        projection = tower.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Linear) else x @ projection

    def _attention_mask(self, tower: Any, mask: Tensor, dtype: torch.dtype) -> Tensor | None:
        """Return the additive mask: causal [L,L], or with padding [B*heads,L,L]."""
        batch, length = mask.shape
        causal = tower.attn_mask
        if causal is not None:
            causal = causal[:length, :length].to(dtype)
        if not self.padding_mask:
            return causal
        hidden = mask.clone()
        hidden[:, 0] = False  # every row keeps one visible key, or its softmax would be 0/0
        added = torch.zeros(batch, 1, length, dtype=dtype, device=mask.device)
        added = added.masked_fill(hidden[:, None], float("-inf")).expand(-1, length, -1)
        if causal is not None:
            added = added + causal
        return added.repeat_interleave(tower.heads, dim=0)


def hugging_face_text(tower: Any, ids: Tensor, mask: Tensor, tokens: bool) -> Features:
    """A Hugging Face encoder: its pooler and projection; tokens through the same projection."""
    hidden = mask | (ids == tower.config.pad_token_id)
    attention = (~hidden).long()
    out = tower.transformer(input_ids=ids, attention_mask=attention)
    pooled = tower.proj(tower.pooler(out, attention))  # [B,D]
    if not tokens:
        return Features(pooled)
    return Features(pooled, tower.proj(out.last_hidden_state), hidden)
