"""Where the files of an encoder's weights are looked for; nothing is loaded, fetched or written.

:func:`weight_files` repeats the way that the encoders of this package take to their weights: a path
as it stands, a tag through the caches of open_clip, torchvision and Hugging Face.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from models.backbones import weights as files
from models.backbones.blip import WEIGHT_FILES
from utils.errors import UserError

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
_SHA256 = re.compile(r"[0-9a-f]{64}")
CLIP_CACHE = "~/.cache/clip"


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """A file that an encoder needs.

    Attributes:
        name: of the file, or of the model on the hub.
        path: where it lies; None: nowhere.
        looked: the places where it is looked for.
        get: the command that brings it to such a place, or what to do.
        recorded: SHA-256 as its publisher states it, whole or the first digits of it; several where
            any of them will do; empty: none is known.
        chosen: whether the user named this very file, so that another hash is their decision.
    """

    name: str
    path: Path | None
    looked: tuple[str, ...]
    get: str = ""
    recorded: tuple[str, ...] = ()
    chosen: bool = False

    def sha256(self) -> str:
        """Return the file's SHA-256 in hex; the file must exist."""
        assert self.path is not None
        with open(self.path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def fits(self, sha256: str) -> bool:
        """Return whether ``sha256`` is one that is recorded, or none is."""
        return not self.recorded or any(sha256.startswith(known) for known in self.recorded)


def weight_files(
    name: str, config: Any, modalities: Sequence[str] = ("image", "text")
) -> tuple[WeightFile, ...]:
    """Return the files that the encoder ``name`` reads; none for random weights, pixels, a plugin.

    Raises:
        UserError: an architecture or a tag that the library does not have.
    """
    find = _FINDERS.get(name)
    weights = getattr(config, "weights", None)
    if find is None or weights == files.RANDOM:
        return ()
    if weights in (None, False):
        unset = "backbone.weights is not set; give a file or a tag"
        return (WeightFile(f"weights of {name}", None, (), unset),)
    return find(config, tuple(modalities))


def hub_files(tag: str, names: Sequence[Sequence[str]]) -> tuple[WeightFile, ...]:
    """Return files of a model on Hugging Face's hub, as its cache has them; none: the model.

    Each of ``names`` is one file under its possible names.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    place = (_short(Path(constants.HF_HUB_CACHE) / f"models--{tag.replace('/', '--')}"),)
    paths = []
    for choices in names:
        cached = (try_to_load_from_cache(tag, name, constants.HF_HUB_CACHE) for name in choices)
        paths.append(next((Path(file) for file in cached if isinstance(file, str)), None))
    lacking = [names[i][0] for i, path in enumerate(paths) if path is None]
    get = f"hf download {tag} {' '.join(lacking)}"
    if not any(paths):
        return (WeightFile(tag, None, place, get),)
    found = []
    for choices, path in zip(names, paths, strict=True):
        blob = "" if path is None else path.resolve().name  # large files are stored by their hash
        recorded = (blob,) if _SHA256.fullmatch(blob) else ()
        found.append(WeightFile(f"{tag}/{choices[0]}", path, place, get, recorded))
    return tuple(found)


def folder_files(
    folder: Path, names: Sequence[Sequence[str]], source: str
) -> tuple[WeightFile, ...]:
    """Return files of a model in a folder; each of ``names`` is one under its possible names."""
    found = []
    for choices in names:
        path = next((folder / name for name in choices if (folder / name).is_file()), None)
        get = f"put {' or '.join(choices)} of {source} there"
        found.append(WeightFile(choices[0], path, (str(folder),), get, chosen=True))
    return tuple(found)


def _short(path: Path) -> str:
    """Return a path with ~ for the home folder."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _given(path: str, source: str, recorded: Sequence[str] = ()) -> WeightFile:
    """Return the file that ``backbone.weights`` names itself."""
    file = files.locate(path)
    get = f"{source}; put it there, or set backbone.weights=PATH"
    in_name = _HASH_IN_NAME.search(file.name)
    known = tuple(recorded) or ((in_name[1],) if in_name else ())
    return WeightFile(file.name, file if file.is_file() else None, (path,), get, known, chosen=True)


def _downloaded(url: str, folder: Path, recorded: Sequence[str]) -> WeightFile:
    """Return the file of ``url`` as a library keeps it in ``folder``."""
    file = folder / url.rsplit("/", 1)[-1]
    get = f"curl -L --create-dirs -o {_short(file)} {url}"
    path = file if file.is_file() else None
    return WeightFile(file.name, path, (_short(file),), get, tuple(recorded))


def _open_clip(config: Any, modalities: tuple[str, ...]) -> tuple[WeightFile, ...]:
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    description = _description(config.model)
    text = () if "text" not in modalities else _text_tower(config.model, description)
    if files.looks_like_file(config.weights):
        url = (get_pretrained_cfg(config.model, "openai") or {}).get("url", "")
        recorded = _hash_of_url(url) if url else ()
        source = f"curl -L -o {config.weights} {url}" if url else f"the weights of {config.model}"
        return (_given(config.weights, source, recorded), *text)
    known = get_pretrained_cfg(config.model, config.weights)
    if not known:
        tags = list_pretrained_tags_by_model(config.model) or ["none for this architecture"]
        raise UserError(
            f"backbone.weights='{config.weights}' is neither a file nor a tag of open_clip for "
            f"{config.model}; tags: {', '.join(tags)}."
        )
    url, hub = known.get("url", ""), known.get("hf_hub", "")
    places: list[WeightFile] = []
    if url:
        places.append(_downloaded(url, Path(CLIP_CACHE).expanduser(), _hash_of_url(url)))
    if hub:
        repository, _, name = hub.rpartition("/")
        default = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
        places += hub_files(repository, [(name,) if name else default])
    return (_first_found(places), *text)


def _first_found(places: Sequence[WeightFile]) -> WeightFile:
    """Return the copy that is there, else the first with all places where one would do."""
    found = next((place for place in places if place.path is not None), None)
    looked = tuple(where for place in places for where in place.looked)
    return found or dataclasses.replace(places[0], looked=looked)


def _hash_of_url(url: str) -> tuple[str, ...]:
    """Return the SHA-256 that OpenAI's and open_clip's URLs carry."""
    parts = url.split("/")
    if "openaipublic" in url and len(parts) > 1 and _SHA256.fullmatch(parts[-2]):
        return (parts[-2],)
    in_name = _HASH_IN_NAME.search(url)
    return (in_name[1],) if in_name else ()


def _description(model: str) -> dict[str, Any]:
    """Return open_clip's description of an architecture; empty where it cannot be read."""
    import open_clip

    if not model.endswith(".json"):
        return open_clip.get_model_config(model.replace("/", "-")) or {}
    try:
        content = json.loads(files.locate(model).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content.get("model_cfg", content)


def _text_tower(model: str, description: dict[str, Any]) -> tuple[WeightFile, ...]:
    """Return what a text tower of Hugging Face reads beside its weights: sizes and words."""
    words = description.get("text_cfg", {})
    name = words.get("hf_tokenizer_name") or words.get("hf_model_name")
    if not name:
        return ()
    names = [("config.json",), ("tokenizer.json", "vocab.txt")]
    folder = files.locate(model).parent / name
    if model.endswith(".json") and folder.is_dir():
        return folder_files(folder, names, name)
    return hub_files(name, names)


def _torchvision(config: Any, _: tuple[str, ...]) -> tuple[WeightFile, ...]:
    import torch
    from torchvision import models

    if config.model not in models.list_models(module=models):
        raise files.unknown_model("torchvision", config.model, models.list_models(module=models))
    published: Any = models.get_model_weights(config.model)
    if files.looks_like_file(config.weights):
        urls = [entry.url for entry in published]
        recorded = [known for url in urls for known in _hash_of_url(url)]
        source = f"curl -L -o {config.weights} {urls[0]}"
        return (_given(config.weights, source, recorded),)
    names = [entry.name for entry in published]
    if config.weights not in (*names, "DEFAULT"):
        raise UserError(
            f"backbone.weights='{config.weights}' is neither a file nor a name of torchvision for "
            f"{config.model}; names: {', '.join(names)}."
        )
    chosen = published.DEFAULT if config.weights == "DEFAULT" else published[config.weights]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return (_downloaded(chosen.url, folder, _hash_of_url(chosen.url)),)


def _timm(config: Any, _: tuple[str, ...]) -> tuple[WeightFile, ...]:
    import timm
    import torch

    if not timm.is_model(config.model):
        raise files.unknown_model("timm", config.model, timm.list_models())
    if isinstance(config.weights, str) and files.looks_like_file(config.weights):
        return (_given(config.weights, f"the weights of timm's {config.model}"),)
    name = config.model
    if config.weights not in (True, "pretrained"):
        name = f"{config.model.split('.')[0]}.{config.weights}"
    known = timm.get_pretrained_cfg(name)
    if known is None:
        raise UserError(
            f"backbone.weights='{config.weights}' is neither a file nor a tag of timm for "
            f"{config.model}."
        )
    places: list[WeightFile] = []
    if known.hf_hub_id:
        names = (known.hf_hub_filename or "model.safetensors", "pytorch_model.bin")
        places += hub_files(known.hf_hub_id, [names])
    if known.url:
        url, folder = str(known.url), Path(torch.hub.get_dir()) / "checkpoints"
        places.append(_downloaded(url, folder, _hash_of_url(url)))
    if places:
        return (_first_found(places),)
    return (WeightFile(f"weights of timm's {name}", None, (), "set backbone.weights=PATH"),)


def _blip(config: Any, modalities: tuple[str, ...]) -> tuple[WeightFile, ...]:
    names: list[tuple[str, ...]] = [WEIGHT_FILES, ("config.json",)]
    if "text" in modalities:
        names.append(("tokenizer.json", "vocab.txt"))
    given = Path(config.weights).expanduser()
    if given.is_dir():
        return folder_files(given, names, "a BLIP of transformers")
    is_path = given.is_file() or config.weights.lower().endswith(files.FILE_SUFFIXES)
    if is_path or config.weights.count("/") > 1 or config.weights.startswith((".", "~", "/")):
        return (_given(config.weights, "BLIP's weights, e.g. BLIP_base.pth"),)
    return hub_files(config.weights, names)


_FINDERS: dict[str, Callable[[Any, tuple[str, ...]], tuple[WeightFile, ...]]] = {
    "open_clip": _open_clip, "torchvision": _torchvision, "timm": _timm, "blip": _blip,
}  # fmt: skip
