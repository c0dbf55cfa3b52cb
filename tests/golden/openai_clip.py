"""A CLIP of any size from a state dict in OpenAI's parameter names, sizes read off the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from models.backbones.open_clip import CLIP_EOS, DualEncoder, OpenCLIPConfig, clip_tokenize
from models.backbones.open_clip_towers import ClipText
from models.backbones.towers import CLIP_MEAN, CLIP_STD, image_settings
from models.backbones.weights import load_into, state_fingerprint


def openai_sizes(
    state: Mapping[str, Tensor], heads_image: int | None = None, heads_text: int | None = None
) -> dict[str, Any]:
    """Return open_clip's description of the ViT CLIP that ``state`` belongs to.

    Heads cannot be read off the tensors; they are width // 64 unless given, as in all of OpenAI's.
    """
    patches = state["visual.conv1.weight"]  # [W,3,P,P]
    width, patch = patches.shape[0], patches.shape[-1]
    grid = round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5)
    text_width = state["ln_final.weight"].shape[0]
    heads_image = heads_image or width // 64
    layers = {
        prefix: sum(n.startswith(prefix) and n.endswith("attn.in_proj_weight") for n in state)
        for prefix in ("visual.transformer.", "transformer.")
    }
    return {
        "embed_dim": state["text_projection"].shape[1],
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": grid * patch,
            "patch_size": patch,
            "width": width,
            "head_width": width // heads_image,
            "layers": layers["visual.transformer."],
        },
        "text_cfg": {
            "context_length": state["positional_embedding"].shape[0],
            "vocab_size": state["token_embedding.weight"].shape[0],
            "width": text_width,
            "heads": heads_text or text_width // 64,
            "layers": layers["transformer."],
        },
    }


def tiny_clip(
    state: Mapping[str, Tensor],
    heads_image: int | None = None,
    heads_text: int | None = None,
    max_words: int | None = None,
    *,
    text_padding_mask: bool = False,
    eos_id: int = CLIP_EOS,
) -> DualEncoder:
    """Return a dual encoder with the weights ``state`` (OpenAI's names), in their dtype.

    Args:
        state: tensors by name; ``logit_scale`` may be among them and is ignored.
        heads_image: attention heads of the image tower (default width // 64).
        heads_text: attention heads of the text tower (default width // 64).
        max_words: length to which :meth:`DualEncoder.tokenize` cuts (default: the whole context).
        text_padding_mask: hide padding inside the text transformer.
        eos_id: the id hidden from heads beside padding.
    """
    import open_clip
    from open_clip.model import convert_to_custom_text_state_dict

    sizes = openai_sizes(state, heads_image, heads_text)
    network = open_clip.CustomTextCLIP(**sizes)
    if state["visual.proj"].element_size() >= 4:
        network = network.to(state["visual.proj"].dtype)
    own = {name: tensor for name, tensor in state.items() if name != "logit_scale"}
    named = convert_to_custom_text_state_dict(own)
    load_into(network, named, "a CLIP of these sizes", "state", optional="logit_")
    size = sizes["vision_cfg"]["image_size"]
    image_input = image_settings(size, CLIP_MEAN, CLIP_STD, OpenCLIPConfig())
    length = max_words or sizes["text_cfg"]["context_length"]
    return DualEncoder(
        network.visual,
        network.text,
        width=sizes["embed_dim"],
        image_input=image_input,
        text_encode=ClipText(text_padding_mask, eos_id),
        tokenizer=lambda: clip_tokenize(length),
        fingerprint=state_fingerprint(own, {**sizes, "padding": text_padding_mask, "eos": eos_id}),
    )


def openai_name(name: str) -> str:
    """Return OpenAI's name of a parameter of :class:`DualEncoder`.

    >>> openai_name("text.ln_final.bias"), openai_name("visual.proj")
    ('ln_final.bias', 'visual.proj')
    """
    return name.removeprefix("text.")
