"""BLIP's vision transformer and, on request, its text encoder, from transformers.

J. Li, D. Li, C. Xiong, S. Hoi. BLIP: Bootstrapping Language-Image Pre-training for Unified
Vision-Language Understanding and Generation. ICML 2022, arXiv:2201.12086.

``weights`` is a folder with ``config.json`` (of ``BlipForImageTextRetrieval``, ``BlipModel``,
``BlipForConditionalGeneration`` or ``BlipVisionModel``), a tag of the model hub, a single file such
as the released ``BLIP_base.pth`` (pictures only), or ``random``.

Pooled features are the class token of the last, normalised layer, 768 numbers at the base size, not
the 256-d projection; ``BlipVisionModel``'s own pooled output normalises it once more, which BLIP's
authors do not.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from common.batch import Features
from common.registry import BACKBONES
from models.backbones import weights as files
from models.backbones.base import Backbone
from models.backbones.towers import CLIP_MEAN, CLIP_STD, TowerBackbone, image_settings
from utils.errors import UserError

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
TEXT_PREFIXES = ("text_encoder.", "text_model.")
DEFAULT_TAG = "Salesforce/blip-itm-base-coco"
BASE_SIZE = 224  # px of the released base model
_OLD_NAMES = (  # of the authors' files → transformers'
    (r"^visual_encoder\.", ""), (r"^blocks\.", "encoder.layers."), (r"\.attn\.", ".self_attn."),
    (r"\.self_attn\.proj\.", ".self_attn.projection."), (r"\.norm([12])\.", r".layer_norm\1."),
    (r"^norm\.", "post_layernorm."), (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^cls_token$", "embeddings.class_embedding"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class BlipConfig:
    """Which BLIP, its weights and its inputs.

    Attributes:
        weights: a folder, a tag of the model hub, a file, or ``random``; null is refused.
        freeze: tower that stays as it is.
        max_words: length to which text is cut.
        image_size: side in pixels; null takes the model's. Positions are interpolated to another.
        image_mean, image_std: three numbers each; null takes CLIP's, as BLIP does.
    """

    weights: str | None = None
    freeze: Literal["none", "image", "text", "all"] = "none"
    max_words: int = 35
    image_size: int | None = None
    image_mean: tuple[float, ...] | None = None
    image_std: tuple[float, ...] | None = None


class BlipBackbone(TowerBackbone):
    """BLIP's encoders; pooled features are class tokens."""

    def __init__(
        self, visual: Any, text: Any, config: BlipConfig, tokenizer: Any, settings: dict[str, Any]
    ) -> None:
        """Take ``BlipVisionModel``, ``BlipTextModel`` or None, and the latter's tokenizer."""
        super().__init__(visual, text, config.freeze)
        sizes = visual.config
        size = config.image_size or sizes.image_size
        self.image_input = image_settings(size, CLIP_MEAN, CLIP_STD, config)
        if self.image_input.size % sizes.patch_size:
            raise UserError(
                f"backbone.image_size={self.image_input.size} is not accepted; a multiple of "
                f"{sizes.patch_size}, the side of BLIP's patches, is needed."
            )
        self.widths = {"image": sizes.hidden_size}
        if text is not None:
            self.widths["text"] = text.config.hidden_size
        self.token_widths = dict(self.widths)
        self._resized = self.image_input.size != sizes.image_size
        self._tokenizer, self._max_words = tokenizer, config.max_words
        settings = {**settings, "image": dataclasses.asdict(self.image_input)}
        if text is not None:  # the same picture features must keep their key without it
            settings["max_words"] = config.max_words
        self.fingerprint = files.state_fingerprint(self, settings)

    def encode_image(self, image: Tensor, tokens: bool = False) -> Features:
        """Encode pictures [B,3,H,W] to pooled [B,D] and, on request, patches [B,L,D]."""
        assert self.visual is not None
        hidden = self.visual(image, interpolate_pos_encoding=self._resized).last_hidden_state
        return Features(hidden[:, 0], hidden[:, 1:] if tokens else None)

    def encode_text(self, text: Tensor, mask: Tensor, tokens: bool = False) -> Features:
        """Encode ids [B,L] without any picture to pooled [B,D] and, on request, tokens [B,L,D]."""
        if self.text is None:
            raise ValueError("this backbone was built without its text tower")
        hidden = self.text(text, attention_mask=(~mask).long()).last_hidden_state
        return Features(hidden[:, 0], hidden, mask) if tokens else Features(hidden[:, 0])

    def tokenize(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Return ids int64 [N,L] and what is padding, bool [N,L]."""
        encoding = self._tokenizer(
            texts, padding="max_length", truncation=True, max_length=self._max_words,
            return_tensors="pt",
        )  # fmt: skip
        return encoding["input_ids"], encoding["attention_mask"] == 0


@BACKBONES.register("blip", config=BlipConfig)
def blip_backbone(config: BlipConfig, modalities: tuple[str, ...]) -> Backbone:
    """BLIP's vision transformer and text encoder (ICML 2022), by path or tag.

    Raises:
        UserError: absent, unfitting or other weights; a text tower where the weights hold none.
    """
    published, weights = published_weights(config), config.weights
    if weights is None:
        raise files.needs_weights("Backbone blip", published, "backbone.weights is not set")
    with_text = "text" in modalities
    settings: dict[str, Any] = {"backbone": "blip", "random": weights == files.RANDOM}
    if weights == files.RANDOM:
        files.warn_random("Backbone blip")
        visual, text = _networks({"vision_config": {"image_size": BASE_SIZE}}, with_text)
        torch.nn.init.normal_(visual.embeddings.class_embedding, std=0.02)
        return BlipBackbone(visual, text, config, _no_tokenizer if text else None, settings)
    folder = Path(weights).expanduser()
    if folder.is_dir():
        return _from_folder(folder, config, with_text, settings)
    if not _is_tag(weights):
        if with_text:
            raise UserError(
                f"backbone.weights='{weights}' is a single file, of which pictures' features alone "
                "are taken; give a folder of transformers with a tokenizer, or model.caption=false."
            )
        state, _ = files.load_state(weights, "Backbone blip", published)
        return BlipBackbone(_of_authors(state, weights), None, config, None, settings)
    return _from_folder(_fetched(weights, published, with_text), config, with_text, settings)


def published_weights(config: BlipConfig) -> files.Published:
    """Return what the weights of ``config.weights`` are, or those of BLIP's base model.

    No hash of BLIP's files is recorded.
    """
    tag = str(config.weights) if config.weights and _is_tag(config.weights) else DEFAULT_TAG
    tag = DEFAULT_TAG if tag == files.RANDOM else tag
    return files.Published(
        f"BLIP's {WEIGHT_FILES[0]} and config.json in one folder", f"huggingface.co/{tag}"
    )


def _is_tag(weights: str) -> bool:
    """Return whether ``weights`` has the form of a tag of the model hub, and is no file."""
    tag = re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", weights, re.ASCII)
    is_file = Path(weights).expanduser().is_file()
    return bool(tag) and not is_file and not weights.lower().endswith(files.FILE_SUFFIXES)


def _fetched(tag: str, published: files.Published, with_text: bool) -> Path:
    """Return the folder of a tag's files, from the cache or the hub."""
    config_file = files.hub_file(tag, ("config.json",))
    weights = files.hub_file(tag, WEIGHT_FILES) if config_file else None
    if config_file is None or weights is None:
        because = f"'{tag}' is no folder here, and {files.not_in_hub()}"
        raise files.needs_weights("Backbone blip", published, because)
    if with_text:
        for name in ("tokenizer_config.json", "tokenizer.json", "vocab.txt"):
            files.hub_file(tag, (name,))
    return Path(config_file).parent


def _from_folder(
    folder: Path, config: BlipConfig, with_text: bool, settings: dict[str, Any]
) -> Backbone:
    config_file = folder / "config.json"
    weights = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if not config_file.is_file() or weights is None:
        raise UserError(
            f"backbone.weights: '{folder}' is no BLIP model: config.json and one of "
            f"{', '.join(WEIGHT_FILES)} are needed."
        )
    try:
        description = json.loads(config_file.read_text(encoding="utf-8"))
        kind = description.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"backbone.weights: '{config_file}' cannot be read ({error}).") from error
    if kind not in ("blip", "blip_vision_model"):
        raise UserError(
            f"backbone.weights: '{folder}' holds a model of type '{kind}'; one of type blip or "
            "blip_vision_model is needed."
        )
    state, _ = files.load_state(str(weights), "Backbone blip", published_weights(config))
    vision = description if kind == "blip_vision_model" else description.get("vision_config") or {}
    visual, text = _networks(
        {"vision_config": vision, "text_config": description.get("text_config") or {}}, with_text
    )
    files.load_into(visual, _below(state, ("vision_model.",)), "BLIP's vision model", str(weights))
    tokenizer = None
    if text is not None:
        below = _below(state, TEXT_PREFIXES)
        text_state = {n: v for n, v in below.items() if n in text.state_dict()}
        if not text_state:
            raise UserError(
                f"backbone.weights: '{folder}' holds no text encoder of BLIP; give weights of "
                "BlipForImageTextRetrieval (a tag ending in itm-…), or model.caption=false."
            )
        files.load_into(text, text_state, "BLIP's text encoder", str(weights))
        tokenizer = _tokenizer(folder)
        settings["tokenizer"] = files.tokenizer_fingerprint(folder)
        settings["text"] = text.config.to_diff_dict()
    settings["vision"] = visual.config.to_diff_dict()
    return BlipBackbone(visual, text, config, tokenizer, settings)


def _networks(sizes: Mapping[str, Any], with_text: bool) -> tuple[Any, Any]:
    """Return untrained networks of the sizes that a BLIP config states."""
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    visual = BlipVisionModel(BlipVisionConfig(**sizes["vision_config"]))
    if not with_text:
        return visual, None
    text = BlipTextConfig(**{**sizes.get("text_config", {}), "is_decoder": False})
    return visual, BlipTextModel(text, add_pooling_layer=False)


def _of_authors(state: Mapping[str, Tensor], source: str) -> Any:
    """Return the vision model of a file by BLIP's authors; sizes are read off its tensors."""
    visual = {}
    for name, value in state.items():
        if name.startswith("visual_encoder."):
            for pattern, instead in _OLD_NAMES:
                name = re.sub(pattern, instead, name)
            visual[name] = value
    try:
        width, _, patch, _ = visual["embeddings.patch_embedding.weight"].shape
        grid = round((visual["embeddings.position_embedding"].shape[1] - 1) ** 0.5)
        sizes = {
            "hidden_size": width, "patch_size": patch, "image_size": grid * patch,
            "intermediate_size": len(visual["encoder.layers.0.mlp.fc1.weight"]),
            "num_hidden_layers": sum(n.endswith("self_attn.qkv.weight") for n in visual),
            "num_attention_heads": max(width // 64, 1),
        }  # fmt: skip
    except KeyError as error:
        raise UserError(
            f"backbone.weights='{source}' holds no {error} of BLIP's vision model; give a file "
            "such as BLIP_base.pth, or a folder of transformers."
        ) from error
    network, _ = _networks({"vision_config": sizes}, with_text=False)
    files.load_into(network, visual, "BLIP's vision model", source)
    return network


def _below(state: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the tensors below the first of ``prefixes`` that is there; else all of them."""
    for prefix in prefixes:
        below = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
        if below:
            return below
    return dict(state)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # missing or broken files fail in many ways
        raise UserError(
            f"backbone.weights: '{folder}' holds no tokenizer that can be loaded "
            f"({str(error).splitlines()[0]}); add tokenizer.json or vocab.txt."
        ) from error


def _no_tokenizer(*_: Any, **__: Any) -> Any:
    raise UserError(
        "backbone.weights=random has no tokenizer of its own; give a folder for model.caption."
    )
