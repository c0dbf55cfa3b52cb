"""Pretrained weights into a module: from a file, never by unpickling, never silently at random.

Accepted files: ``.safetensors``; a state dict saved by ``torch.save`` (read with
``weights_only=True``, which refuses everything but tensors and plain containers); a TorchScript
archive such as those of OpenAI's CLIP, whose records are read and whose code is never run
(:mod:`models.backbones.torchscript`). Whatever is missing or does not fit raises an error of one
sentence, which says what to do next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
import re
import socket
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from common.storage.contents import content_digest, content_digests
from models.backbones.torchscript import ArchiveError, is_torchscript, read_torchscript
from utils.errors import MissingWeightsError, UserError, nearest
from utils.files import digest

RANDOM = "random"
"""Value of ``backbone.weights`` for an untrained network."""

FILE_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".npz", ".tar")
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
PROJECT_ROOT = Path(__file__).resolve().parents[2]
WITHOUT = (
    "without it, choose another encoder by name (backbone=NAME; 'python main.py list backbones' "
    "has them) or backbone=pixels, which needs none"
)
_OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")

log = logging.getLogger("hashing")


def looks_like_file(weights: str) -> bool:
    """Return True when ``weights`` names a file rather than a library's tag for weights."""
    named = weights.lower().endswith(FILE_SUFFIXES)
    return named or os.sep in weights or Path(weights).expanduser().is_file()


def locate(path: str) -> Path:
    """Return ``path`` as it stands, or below the project's root where only that exists."""
    file = Path(path).expanduser()
    if file.is_absolute() or file.exists():
        return file
    below_root = PROJECT_ROOT / file
    return below_root if below_root.exists() else file


@dataclasses.dataclass(frozen=True)
class Published:
    """A file of weights as those who trained it give it away.

    Attributes:
        file: its name, or what it is.
        source: where it comes from.
        place: where it is looked for before it is downloaded; None: no one place.
        url: its address, or "".
        hashes: first hex digits of the SHA-256 of the file and of other official ones of the same
            network; empty where none is recorded.
    """

    file: str
    source: str
    place: Path | None = None
    url: str = ""
    hashes: tuple[str, ...] = ()

    @classmethod
    def at(cls, url: str, folder: Path, publisher: str = "") -> Published:
        """Return what is known of a file by its address, which often names its hash."""
        name = url.rsplit("/", 1)[-1]
        source = f"{publisher}, {url}" if publisher else url
        return cls(name, source, folder / name, url, hashes_in([url]))


def hashes_in(urls: Iterable[str]) -> tuple[str, ...]:
    """Return the hashes that addresses or file names hold.

    >>> hashes_in(["https://x.org/resnet34-b627a593.pth", "https://x.org/plain.pth"])
    ('b627a593',)
    """
    found = (re.search(r"/([0-9a-f]{64})/[^/]+$|-([0-9a-f]{8,64})\.\w+$", url) for url in urls)
    return tuple(match[1] or match[2] for match in found if match)


def needs_weights(
    what: str, published: Published, because: str, place: Path | None = None
) -> UserError:
    """Return the sentence for absent weights of ``what``: file, source, place, and ways on.

    ``place``: where the file would have been found.
    """
    put = f"put it at '{place}', or elsewhere with" if place else "give"
    return MissingWeightsError(
        f"{what} needs {published.file} ({published.source}), but {because}: {put} "
        f"backbone.weights=PATH; {WITHOUT} (backbone.weights={RANDOM}: an untrained network)."
    )


def unknown_model(library: str, name: str, known: Iterable[str]) -> UserError:
    """Return the sentence for an architecture that ``library`` does not have."""
    names = list(known)
    return UserError(
        f"backbone.model='{name}' is none of the {len(names)} architectures of {library}."
        f"{nearest(name, names)} '{library}.{'models.' * (library == 'torchvision')}list_models()' "
        "lists them."
    )


def load_state(path: str, what: str, published: Published) -> tuple[dict[str, Tensor], bool]:
    """Read a weight file safely; a hash other than the official file's is told.

    Args:
        path: a file, absolute or relative to the working directory or the project's root.
        what: the network, for messages ("Backbone open_clip (ViT-B-32)").
        published: the official file, for the message when this one is missing or another one.

    Returns:
        The tensors by name (wrappers ``state_dict``, ``model`` and the prefix ``module.`` removed),
        and whether the file is one of OpenAI's (then its activation is QuickGELU).

    Raises:
        UserError: no such file, or one that holds anything but tensors.
    """
    file = locate(path)
    if not file.is_file():
        raise needs_weights(what, published, f"'{path}' does not exist", file)
    if published.hashes:
        _warn_of_another_hash(file, published, content_digest(file)[:16])
    if file.suffix == ".safetensors":
        return _read_safetensors(file), False
    if is_torchscript(file):
        state = _read_torchscript(file)
        return {k: v for k, v in state.items() if k not in _OPENAI_EXTRAS}, True
    state = _unwrap(_read_state_dict(file), file)
    openai = all(name in state for name in _OPENAI_EXTRAS)
    return {k: v for k, v in state.items() if k not in _OPENAI_EXTRAS}, openai


@functools.lru_cache(maxsize=64)  # once in a process, not once for each run of a sweep
def _warn_of_another_hash(file: Path, published: Published, found: str) -> None:
    if not any(found.startswith(official[:16]) for official in published.hashes):
        log.warning(
            "'%s' has SHA-256 %s, the official %s %s: other weights than the published ones, or "
            "these in another format; numbers may differ from published ones.",
            file, found, published.file, published.hashes[0][:16],
        )  # fmt: skip


def _refused(file: Path, why: str) -> UserError:
    return UserError(
        f"'{file}' {why}; files are never unpickled: convert it to .safetensors (names and tensors "
        "only) and give that."
    )


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(
            f"'{file}' cannot be read as safetensors ({error}); fetch or convert it again."
        ) from error


def _read_torchscript(file: Path) -> dict[str, Tensor]:
    try:
        return read_torchscript(file)
    except ArchiveError as error:
        raise UserError(
            f"'{file}' is a TorchScript archive, which is a program and is never run, and its "
            f"tensors cannot be read as data ({error}); if you trust it, convert it with "
            "safetensors.torch.save_file(torch.jit.load(FILE).state_dict(), 'weights.safetensors') "
            "and give that."
        ) from error


def _read_state_dict(file: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # arbitrary bytes make the restricted reader fail in any way
        raise _refused(file, "is a pickle or no weight file at all") from error


def _unwrap(content: Any, file: Path) -> dict[str, Any]:
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise _refused(file, f"holds a {type(content).__name__}, not tensors by name")
    state = {str(name).removeprefix("module."): value for name, value in content.items()}
    non_tensors = [
        n for n, v in state.items() if not isinstance(v, Tensor) and n not in _OPENAI_EXTRAS
    ]
    if non_tensors:
        raise _refused(file, f"holds '{non_tensors[0]}', which is no tensor")
    return state


def load_into(
    module: nn.Module, state: Mapping[str, Tensor], what: str, source: str, optional: str = "\0"
) -> None:
    """Copy ``state`` into ``module``, every name and shape having to agree.

    Args:
        module: the network; keeps its own dtype.
        state: tensors by name.
        what: the network, for the message.
        source: the file or tag, for the message.
        optional: prefix of names that may be missing from ``state``.

    Raises:
        UserError: names the first missing and unexpected name or the shapes that differ.
    """
    expected = module.state_dict()
    counters = ".num_batches_tracked"  # absent from older files, and of no effect
    missing = [
        name
        for name in expected
        if name not in state and not name.startswith(optional) and not name.endswith(counters)
    ]
    unexpected = [name for name in state if name not in expected]
    reshaped = [n for n, v in state.items() if n in expected and expected[n].shape != v.shape]
    problems = []
    if missing:
        problems.append(f"{len(missing)} names are missing (first '{missing[0]}')")
    if unexpected:
        problems.append(f"{len(unexpected)} are unknown (first '{unexpected[0]}')")
    if reshaped:
        name = reshaped[0]
        problems.append(
            f"{len(reshaped)} shapes differ (first '{name}': {list(state[name].shape)} given, "
            f"{list(expected[name].shape)} in the network)"
        )
    if problems:
        raise UserError(
            f"'{source}' does not fit {what}: {', '.join(problems)}; choose the architecture that "
            "these weights were made for (backbone.model)."
        )
    module.load_state_dict(dict(state), strict=False)


def warn_random(what: str) -> None:
    """Log that a network starts from random weights, as configured."""
    log.warning("%s starts from random weights, as backbone.weights=%s asks.", what, RANDOM)


def reachable(url: str) -> bool:
    """Return whether the host of ``url`` answers, so that no download is retried in vain.

    Behind a proxy this cannot be tested cheaply, and True is returned.
    """
    if any(
        os.environ.get(name) for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    ):
        return True
    host = urlparse(url).hostname
    try:
        socket.create_connection((host or url, 443), timeout=5.0).close()
    except OSError:
        return False
    return True


def hub_file(repository: str, names: tuple[str, ...]) -> str | None:
    """Return a file of a Hugging Face repository: cached, else downloaded, else None.

    ``names`` are tried in order.
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    for name in names:
        cached = try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return cached
    if constants.HF_HUB_OFFLINE or not reachable(constants.ENDPOINT):
        return None
    for name in names:
        with contextlib.suppress(Exception):  # a file may be absent; the caller says what is needed
            return hf_hub_download(repository, name)
    return None


def not_in_hub() -> str:
    """Return the words for a file that :func:`hub_file` does not give."""
    from huggingface_hub import constants

    return f"it is neither in '{constants.HF_HUB_CACHE}' nor to be downloaded"


def url_file(what: str, published: Published) -> str:
    """Return the file at ``published.place``, downloaded from its address where it is missing.

    Raises:
        UserError: it is neither there nor to be downloaded.
    """
    place = published.place
    assert place is not None and published.url
    if not place.is_file():
        if not reachable(published.url):
            because = "it is not here and cannot be downloaded"
            raise needs_weights(what, published, because, place)
        with library_errors(what, published):
            place.parent.mkdir(parents=True, exist_ok=True)
            expected = published.hashes[0] if published.hashes else None
            torch.hub.download_url_to_file(published.url, str(place), hash_prefix=expected)
    return str(place)


@contextlib.contextmanager
def library_errors(what: str, published: Published) -> Iterator[None]:
    """Turn a library's failure to fetch or build something into one sentence."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        because = f"that failed ({lines[0].rstrip('.')})"
        raise needs_weights(what, published, because, published.place) from error


def tokenizer_fingerprint(folder: Path) -> str:
    """Return a hash of the files of a tokeniser of transformers, by content."""
    files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    return digest(*(f"{f.name} {c}" for f, c in zip(files, content_digests(files), strict=True)))


def state_fingerprint(source: nn.Module | Mapping[str, Tensor], settings: Mapping[str, Any]) -> str:
    """Return 16 hex digits of SHA-256 over all tensors (name, dtype, shape, bytes) and settings.

    Args:
        source: a module, of which the state dict is taken, or tensors by name; order is immaterial.
        settings: whatever else changes the features; must be representable as JSON.
    """
    state = source.state_dict() if isinstance(source, nn.Module) else source
    total = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name in sorted(state):
        total.update(f"\n{name} {state[name].dtype} {list(state[name].shape)}\n".encode())
        if state[name].is_meta:  # a network that is only measured
            continue
        tensor = state[name].detach().cpu().contiguous()
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()[:16]
