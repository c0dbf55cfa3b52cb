"""OpenAI's CLIP, of any size, from a state dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.golden.harness import RTOL_HEAD, Case, adapter
from tests.golden.openai_clip import openai_sizes, tiny_clip


@adapter("clip_tiny", not_read={"cfg_note": "a note in words"})
def clip_tiny(case: Case) -> None:
    """Pooled and token features of both towers, with and without padding hidden in the text tower.

    Our tokens are [B,L,D], the recorded ones [L,B,D].
    """
    state = case.weights("w_")
    heads = case.cfg("vision_heads"), case.cfg("text_heads")
    agree_with_sizes(case, openai_sizes(state, *heads))
    mask = case.tensor("in_key_padding_mask")
    for padding, suffix in ((True, "masked"), (False, "nomask")):
        backbone = tiny_clip(state, *heads, text_padding_mask=padding)
        text = backbone.encode_text(case.tensor("in_text"), mask, tokens=True)
        case.close(f"out_txt_eos_{suffix}", text.pooled, RTOL_HEAD)
        tokens = text.tokens.transpose(0, 1)
        case.close(f"out_txt_tokens_LND_{suffix}", tokens, RTOL_HEAD)
        case.equal("out_new_key_padding_mask", text.mask)
    image = backbone.encode_image(case.tensor("in_image"), tokens=True)
    case.close("out_img_cls", image.pooled, RTOL_HEAD)
    case.close("out_img_tokens_LND", image.tokens.transpose(0, 1), RTOL_HEAD)


def agree_with_sizes(case: Case, sizes: Mapping[str, Any]) -> None:
    """Require that the sizes read off the tensors are those that the file states."""
    vision, text = sizes["vision_cfg"], sizes["text_cfg"]
    case.agree("embed_dim", sizes["embed_dim"])
    case.agree("image_resolution", vision["image_size"])
    case.agree("patch", vision["patch_size"])
    case.agree("vision_width", vision["width"])
    case.agree("vision_layers", vision["layers"])
    case.agree("context", text["context_length"])
    case.agree("vocab", text["vocab_size"])
    case.agree("text_width", text["width"])
    case.agree("text_layers", text["layers"])
