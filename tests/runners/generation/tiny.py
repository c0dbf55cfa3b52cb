"""Models of the real classes with a few channels and random weights, made in a second."""

from __future__ import annotations

from pathlib import Path

import torch

WORDS = ("a", "photo", "of", "the", "ant", "bee", "cow", "meadow", "in", "and")
SIDE = 16  # px of a picture


def write_pipeline(folder: Path, seed: int = 0) -> Path:
    """Write a Stable Diffusion pipeline that generates 16 px."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=16, projection_dim=16,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=16, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, sample_size=SIDE,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet,
        scheduler=scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def clip_tokenizer():
    """Return CLIP's tokenizer with letters only and no merges."""
    from transformers import CLIPTokenizer

    letters = [chr(c) for c in range(33, 127)]
    symbols = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[], model_max_length=16
    )


def write_caption_model(folder: Path, seed: int = 0) -> Path:
    """Write a BLIP captioner that knows ten words."""
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    torch.manual_seed(seed)
    names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *WORDS)
    ids = {name: i for i, name in enumerate(names)}
    tokenizer = BertTokenizer(vocab=ids, bos_token="[DEC]")
    common = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
              "num_attention_heads": 2}  # fmt: skip
    config = BlipConfig(
        text_config={
            **common, "vocab_size": len(names), "encoder_hidden_size": 16, "projection_dim": 16,
            "max_position_embeddings": 40, "bos_token_id": ids["[DEC]"], "initializer_range": 2.0,
            "eos_token_id": ids["[SEP]"], "sep_token_id": ids["[SEP]"], "pad_token_id": 0,
        },
        vision_config={
            **common, "image_size": SIDE, "patch_size": 8, "projection_dim": 16,
            "initializer_range": 1.0,
        },
    )  # fmt: skip
    BlipForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    BlipProcessor(BlipImageProcessor(size=size), tokenizer).save_pretrained(folder)
    return folder


def write_adapter(folder: Path, channels: tuple[int, ...] = (8, 16)) -> Path:
    """Write a T2I-Adapter that fits the pipeline's two blocks."""
    from diffusers import T2IAdapter

    torch.manual_seed(0)
    T2IAdapter(
        in_channels=3, channels=list(channels), num_res_blocks=1, downscale_factor=2,
        adapter_type="full_adapter",
    ).save_pretrained(folder)  # fmt: skip
    return folder


def write_single_file(pipeline: Path, file: Path) -> Path:
    """Write the tiny pipeline's weights under the names of CompVis's ``.ckpt`` files."""
    import re

    from safetensors.torch import load_file, save_file

    state: dict[str, torch.Tensor] = {}
    blocks = {
        "down_blocks.0.resnets.0": "input_blocks.1.0",
        "down_blocks.0.attentions.0": "input_blocks.1.1",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
        "down_blocks.1.resnets.0": "input_blocks.3.0",
        "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
        "up_blocks.0.resnets.0": "output_blocks.0.0", "up_blocks.0.resnets.1": "output_blocks.1.0",
        "up_blocks.0.upsamplers.0": "output_blocks.1.1",
        "up_blocks.1.resnets.0": "output_blocks.2.0", "up_blocks.1.resnets.1": "output_blocks.3.0",
        "up_blocks.1.attentions.0": "output_blocks.2.1",
        "up_blocks.1.attentions.1": "output_blocks.3.1",
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    }  # fmt: skip
    layers = {
        "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
    }  # fmt: skip
    for name, value in load_file(pipeline / "unet/diffusion_pytorch_model.safetensors").items():
        start = next(block for block in blocks if name.startswith(f"{block}."))
        rest = name[len(start) + 1 :]
        if ".resnets." in start:
            layer, _, kind = rest.rpartition(".")
            rest = f"{layers[layer]}.{kind}"
        state[f"model.diffusion_model.{blocks[start]}.{rest}"] = value
    for name, value in load_file(pipeline / "vae/diffusion_pytorch_model.safetensors").items():
        for pattern, replacement in (
            (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
            (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
            (r"up_blocks\.0\.resnets", "up.1.block"), (r"up_blocks\.1\.resnets", "up.0.block"),
            (r"up_blocks\.0\.upsamplers\.0", "up.1.upsample"),
            (r"mid_block\.resnets\.0", "mid.block_1"), (r"mid_block\.resnets\.1", "mid.block_2"),
            (r"mid_block\.attentions\.0", "mid.attn_1"), (r"attn_1\.group_norm", "attn_1.norm"),
            (r"attn_1\.to_([qkv])", r"attn_1.\1"), (r"attn_1\.to_out\.0", "attn_1.proj_out"),
            ("conv_norm_out", "norm_out"), ("conv_shortcut", "nin_shortcut"),
        ):  # fmt: skip
            name = re.sub(pattern, replacement, name)
        if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name):
            value = value[:, :, None, None]
        state[f"first_stage_model.{name}"] = value.contiguous()
    for name, value in load_file(pipeline / "text_encoder/model.safetensors").items():
        short = name.removeprefix("text_model.")
        state[f"cond_stage_model.transformer.text_model.{short}"] = value
    if file.suffix == ".ckpt":
        torch.save({"state_dict": state}, file)
    else:
        save_file(state, file)
    return file
