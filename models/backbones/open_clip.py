"""Any dual encoder that open_clip can build: OpenAI's CLIP, LAION's, our own small ones.

An architecture is a name (``ViT-B-32-quickgelu``) or a JSON file in open_clip's layout, alone or as
``{"model_cfg": ..., "preprocess_cfg": {"mean": ..., "std": ...}}``; a directory of a Hugging Face
text encoder named in it may lie beside the file. Weights are a file or one of open_clip's tags.

The published cross-modal hashing methods use OpenAI's ViT-B/32 with the first 32 text positions,
nothing frozen: ``model: ViT-B-32-quickgelu``, ``weights: openai``.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from common.batch import Features
from common.registry import BACKBONES
from models.backbones import weights as files
from models.backbones.base import Backbone, ImageInput
from models.backbones.open_clip_towers import (
    ClipText,
    TextEncode,
    hugging_face_text,
    image_encode_for,
    with_lean_blocks,
)
from models.backbones.towers import CLIP_MEAN, CLIP_STD, TowerBackbone, image_settings
from utils.errors import UserError

CLIP_EOS = 49407
Tokenize = Callable[[list[str]], tuple[Tensor, Tensor]]


@dataclasses.dataclass(frozen=True)
class OpenCLIPConfig:
    """Which dual encoder, its weights and its inputs.

    Attributes:
        model: open_clip's name of the architecture, or a JSON file.
        weights: a file, a tag of open_clip, or ``random``; null is refused.
        max_words: length to which text is cut, SOS and EOS included.
        freeze: tower that stays as it is, also in its batch-norm statistics.
        text_padding_mask: hide padding inside OpenAI's text transformer (MITH does; DCMHT, DSPH
            and the others do not). Towers of Hugging Face always hide it.
        quick_gelu: activation; null takes what the weights were trained with.
        image_size: side in pixels; null takes the model's.
        image_mean, image_std: three numbers each; null takes the model's.
    """

    model: str = "ViT-B-32-quickgelu"
    weights: str | None = None
    max_words: int = 32
    freeze: Literal["none", "image", "text", "all"] = "none"
    text_padding_mask: bool = False
    quick_gelu: bool | None = None
    image_size: int | None = None
    image_mean: tuple[float, ...] | None = None
    image_std: tuple[float, ...] | None = None


class DualEncoder(TowerBackbone):
    """Two towers of open_clip with a joint feature space; ``state_dict`` has their own names.

    Without the prefix ``text.`` the names are OpenAI's (``visual.proj``, ``ln_final.weight``).
    ``logit_scale`` is left out: no hashing method uses it.
    """

    def __init__(
        self,
        visual: Any,
        text: Any,
        *,
        width: int,
        image_input: ImageInput | None,
        text_encode: TextEncode | None,
        tokenizer: Callable[[], Tokenize],
        freeze: str = "none",
        fingerprint: str = "",
    ) -> None:
        """Put the towers together; ``tokenizer`` makes the tokeniser when it is first needed."""
        super().__init__(visual, text, freeze)
        self._image_encode = None if visual is None else image_encode_for(visual)
        self._text_encode = text_encode
        self._tokenizer = functools.cache(tokenizer)
        self.image_input = image_input if visual is not None else None
        self.fingerprint = fingerprint
        towers = {"image": visual, "text": text}
        self.widths = {name: width for name, tower in towers.items() if tower is not None}
        self.token_widths = dict(self.widths)
        head = getattr(visual, "head", None)
        if head is not None and (not len(head) or hasattr(head, "pool")):
            self.token_widths["image"] = visual.trunk.num_features

    def encode_image(self, image: Tensor, tokens: bool = False) -> Features:
        """Encode pictures [B,3,H,W] to pooled [B,D] and, on request, tokens [B,L,D]."""
        if self._image_encode is None:
            raise ValueError("this backbone was built without its image tower")
        return self._image_encode(self.visual, image, tokens)

    def encode_text(self, text: Tensor, mask: Tensor, tokens: bool = False) -> Features:
        """Encode ids [B,L]; see :mod:`models.backbones.open_clip_towers` for the mask of tokens."""
        if self._text_encode is None:
            raise ValueError("this backbone was built without its text tower")
        return self._text_encode(self.text, text, mask, tokens)

    def tokenize(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Return ids int64 [N,L] and the mask [N,L] of what follows EOS (True = hidden).

        The released DCMHT and MITH code hides every id 0, thus also a literal "!" in a caption,
        whose id is 0. Here "!" is a word like any other and only padding is hidden.
        """
        return self._tokenizer()(list(texts))


@BACKBONES.register("open_clip", config=OpenCLIPConfig)
def open_clip_backbone(config: OpenCLIPConfig, modalities: tuple[str, ...]) -> Backbone:
    """CLIP and its kin: a picture and a text tower in one feature space, by open_clip.

    Raises:
        UserError: unknown architecture, absent or unfitting weights; one sentence each.
    """
    import open_clip

    what = f"Backbone open_clip ({config.model})"
    architecture, preprocess, home = _architecture(config.model)
    published = _published(config, home)
    if config.max_words < 3:
        raise UserError(f"backbone.max_words={config.max_words} leaves no word beside SOS and EOS.")
    if config.weights is None:
        raise files.needs_weights(what, published, "backbone.weights is not set")
    state, weight_settings = _fetch(config, what, published)
    preprocess = {**weight_settings, **preprocess}
    if config.quick_gelu is not None:
        architecture["quick_gelu"] = config.quick_gelu
    elif weight_settings.get("quick_gelu"):
        architecture["quick_gelu"] = True
    if config.image_size is not None:
        architecture["vision_cfg"]["image_size"] = config.image_size
    _require_local(architecture["text_cfg"].get("hf_model_name"), what)
    with files.library_errors(what, published):
        network = with_lean_blocks(
            open_clip.CustomTextCLIP(
                architecture["embed_dim"],
                architecture["vision_cfg"],
                architecture["text_cfg"],
                quick_gelu=architecture.get("quick_gelu", False),
            )
        )
    if state is None:
        files.warn_random(what)
    else:
        _load(network, state, what, str(config.weights))
    if config.image_size is not None and hasattr(network.visual, "set_input_size"):
        network.visual.set_input_size(config.image_size)
    return _assemble(network, architecture, preprocess, home, config, modalities)


def _assemble(
    network: Any,
    architecture: dict[str, Any],
    preprocess: Mapping[str, Any],
    home: Path | None,
    config: OpenCLIPConfig,
    modalities: tuple[str, ...],
) -> DualEncoder:
    size = network.visual.image_size
    image_input = image_settings(
        size[0] if isinstance(size, (tuple, list)) else size,
        preprocess.get("mean") or CLIP_MEAN,
        preprocess.get("std") or CLIP_STD,
        config,
    )
    hugging_face = "hf_model_name" in architecture["text_cfg"]
    # a pooled last token, or an appended class token, lies where training put it: no cut
    fixed = not hugging_face and (
        network.text.pool_type == "last" or network.text.cls_emb is not None
    )
    context = int(network.text.context_length)
    length = context if fixed else min(config.max_words, context)
    text_encode: TextEncode = hugging_face_text
    if not hugging_face:
        text_encode = ClipText(config.text_padding_mask, CLIP_EOS)
    local_names = ("hf_model_name", "hf_tokenizer_name")  # where these lie does not matter
    text_cfg = {k: v for k, v in architecture["text_cfg"].items() if k not in local_names}
    names = [architecture["text_cfg"].get(name) for name in reversed(local_names)]
    if name := next(filter(None, names), None):
        text_cfg["tokenizer"] = _tokenizer_fingerprint(name)
    settings = {
        "backbone": "open_clip",
        "architecture": {**architecture, "text_cfg": text_cfg},
        "image": dataclasses.asdict(image_input),
        "text": [length, config.text_padding_mask],
        "random": config.weights == files.RANDOM,
    }
    return DualEncoder(
        network.visual if "image" in modalities else None,
        network.text if "text" in modalities else None,
        width=architecture["embed_dim"],
        image_input=image_input,
        text_encode=text_encode if "text" in modalities else None,
        tokenizer=lambda: _tokenizer(config.model, architecture["text_cfg"], home, length),
        freeze=config.freeze,
        fingerprint=files.state_fingerprint(
            {k: v for k, v in network.state_dict().items() if not k.startswith("logit_")}, settings
        ),
    )


def _architecture(model: str) -> tuple[dict[str, Any], dict[str, Any], Path | None]:
    """Return open_clip's description of ``model``, picture settings, and the JSON file's folder."""
    import open_clip

    if not model.endswith(".json"):
        architecture = open_clip.get_model_config(model.replace("/", "-"))
        if architecture is None:
            raise files.unknown_model("open_clip", model, open_clip.list_models())
        return _without_download(architecture), {}, None
    file = files.locate(model)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"backbone.model='{model}' is no readable JSON file of an open_clip architecture "
            f"({error}); give an open_clip name or such a file."
        ) from error
    architecture = content.get("model_cfg", content)
    lacking = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in architecture]
    if lacking:
        raise UserError(f"'{file}' describes no open_clip architecture: '{lacking[0]}' is missing.")
    for key in ("hf_model_name", "hf_tokenizer_name"):
        name = architecture["text_cfg"].get(key)
        if name and (file.parent / name).is_dir():
            architecture["text_cfg"][key] = str((file.parent / name).resolve())
    return _without_download(architecture), dict(content.get("preprocess_cfg", {})), file.parent


def _without_download(architecture: dict[str, Any]) -> dict[str, Any]:
    if "timm_model_name" in architecture["vision_cfg"]:
        architecture["vision_cfg"]["timm_model_pretrained"] = False
    else:
        architecture["vision_cfg"].pop("timm_model_pretrained", None)
    if "hf_model_name" in architecture["text_cfg"]:
        architecture["text_cfg"]["hf_model_pretrained"] = False
    return architecture


def _require_local(name: str | None, what: str) -> None:
    """Refuse a Hugging Face text encoder whose config is neither here nor to be had."""
    if name and not Path(name).is_dir() and files.hub_file(name, ("config.json",)) is None:
        needed = files.Published(f"the folder of '{name}'", f"huggingface.co/{name}")
        because = f"the description of its text encoder is not here: {files.not_in_hub()}"
        raise files.needs_weights(what, needed, because)


def published_weights(config: OpenCLIPConfig) -> files.Published:
    """Return the published file of ``config.weights``; for a file or none, OpenAI's if it has one.

    Raises:
        UserError: unknown architecture.
    """
    return _published(config, _architecture(config.model)[2])


def _published(config: OpenCLIPConfig, home: Path | None) -> files.Published:
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    if home is not None:
        name = Path(config.model).with_suffix(".safetensors").name
        return files.Published(name, f"beside '{config.model}'")
    tags = list_pretrained_tags_by_model(config.model)
    if not tags:
        return files.Published("a checkpoint in open_clip's parameter names", "no published one")
    known = {tag: get_pretrained_cfg(config.model, tag) for tag in tags}
    by_tag = config.weights in known
    tag = str(config.weights) if by_tag else "openai" if "openai" in known else tags[0]
    url, hub = known[tag].get("url", ""), known[tag].get("hf_hub", "")
    if not url:
        return files.Published(f"open_clip's weights '{tag}'", f"huggingface.co/{hub}".rstrip("/"))
    folder = Path("~/.cache/clip").expanduser()  # open_clip's
    publisher = "OpenAI" if tag == "openai" else ""
    file = files.Published.at(url, folder, publisher)
    others = () if by_tag else tuple(entry.get("url", "") for entry in known.values())
    return dataclasses.replace(file, hashes=files.hashes_in([url, *others]))


def _fetch(
    config: OpenCLIPConfig, what: str, published: files.Published
) -> tuple[dict[str, Tensor] | None, dict[str, Any]]:
    """Return the weights (None for random) and what goes with them: mean, std, quick_gelu."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    weights = str(config.weights)
    if weights == files.RANDOM:
        return None, {}
    if files.looks_like_file(weights):
        state, openai = files.load_state(weights, what, published)
        return state, {"quick_gelu": openai}
    known = get_pretrained_cfg(config.model, weights)
    if not known:
        tags = list_pretrained_tags_by_model(config.model) or ["none for this architecture"]
        raise UserError(
            f"backbone.weights='{weights}' is neither a file nor a tag of open_clip for "
            f"{config.model}; tags: {', '.join(tags)}."
        )
    file = _of_hub(known, what, published) or files.url_file(what, published)
    if Path(file) != published.place:  # the hub's copy is of another format
        published = dataclasses.replace(published, hashes=())
    state, openai = files.load_state(file, what, published)
    known = {k: v for k, v in known.items() if k in ("mean", "std", "quick_gelu")}
    return state, {**known, "quick_gelu": openai or known.get("quick_gelu", False)}


def _of_hub(known: Mapping[str, Any], what: str, published: files.Published) -> str | None:
    """Return the file of a tag on the model hub; None where the published one is to be taken."""
    hub = known.get("hf_hub", "")
    if not hub or (published.place is not None and published.place.is_file()):
        return None
    repository, name = hub.rsplit("/", 1)
    names = (name,) if name else ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    file = files.hub_file(repository, names)
    if file is None and not published.url:
        raise files.needs_weights(what, published, files.not_in_hub())
    return file


def _load(network: Any, state: dict[str, Tensor], what: str, source: str) -> None:
    """Load a checkpoint of open_clip or OpenAI; image positions are resized to another size."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed

    state = convert_state_dict(network, dict(state))
    state = convert_to_custom_text_state_dict(state)
    buffers = ("text.transformer.embeddings.position_ids", "text.attn_mask", "attn_mask")
    for name in [n for n in state if n.startswith("text_decoder.") or n in buffers]:
        del state[name]
    for name in ("logit_scale", "logit_bias"):  # takes no part in hashing
        state.pop(name, None)
    resize_pos_embed(state, network)
    files.load_into(network, state, what, source, optional="logit_")


def _tokenizer(model: str, text_cfg: Mapping[str, Any], home: Path | None, length: int) -> Tokenize:
    """Return the tokeniser that belongs to a text tower, cutting to ``length`` ids."""
    import open_clip

    what = f"Backbone open_clip ({model})"
    name = text_cfg.get("hf_tokenizer_name") or text_cfg.get("hf_model_name")
    if name is None and (home is not None or "siglip" not in model.lower()):
        return clip_tokenize(length)
    if "trust_remote_code" in text_cfg.get("tokenizer_kwargs", {}):
        raise UserError(
            f"backbone.model='{model}' asks in tokenizer_kwargs for trust_remote_code, which would "
            "run code that comes with a model; remove that key."
        )
    needed = files.Published(f"the tokeniser files of '{name or model}'", "huggingface.co")
    with files.library_errors(what, needed):
        if name is None:
            tokenizer = open_clip.get_tokenizer(model, context_length=length)
        else:
            local = Path(name).is_dir() or not files.reachable("https://huggingface.co")
            tokenizer = open_clip.tokenizer.HFTokenizer(
                str(name),
                context_length=length,
                tokenizer_mode=text_cfg.get("tokenizer_mode"),
                local_files_only=local,
                **text_cfg.get("tokenizer_kwargs", {}),
            )
    padding = getattr(getattr(tokenizer, "tokenizer", None), "pad_token_id", None) or 0

    def tokenize(texts: list[str]) -> tuple[Tensor, Tensor]:
        ids = tokenizer(texts)  # [N,L]
        return ids, ids == padding

    return tokenize


def _tokenizer_fingerprint(name: str) -> str:
    """Return a hash of the files of a tokeniser, in a folder or in the hub's cache."""
    folder = Path(name)
    if not folder.is_dir():
        file = files.hub_file(name, ("tokenizer_config.json", "config.json"))
        folder = Path(file).parent if file else folder
    return files.tokenizer_fingerprint(folder)


def has_clip_texts(model: str) -> bool:
    """Tell whether texts of ``backbone.model`` are CLIP's pieces, pooled at the largest id."""
    text_cfg = _architecture(model)[0]["text_cfg"]
    other = text_cfg.get("hf_tokenizer_name") or text_cfg.get("hf_model_name")
    return not other and text_cfg.get("pool_type", "argmax") == "argmax"


def clip_tokenize(length: int) -> Tokenize:
    """Return CLIP's byte-pair tokeniser: SOS, at most ``length`` - 2 pieces, EOS, zeros."""
    from open_clip import SimpleTokenizer

    tokenizer = SimpleTokenizer(context_length=length)

    def tokenize(texts: list[str]) -> tuple[Tensor, Tensor]:
        ids = tokenizer(texts) if texts else torch.zeros(0, length, dtype=torch.long)  # [N,L]
        mask = torch.arange(length) > ids.argmax(dim=1, keepdim=True)  # EOS is the largest id
        return ids, mask

    return tokenize
