"""Pretrained weights into a module: from a file, never by unpickling, never silently at random.

Accepted files: ``.safetensors``; a state dict saved by ``torch.save`` (read with
``weights_only=True``, which refuses everything but tensors and plain containers); a TorchScript
archive such as those of OpenAI's CLIP. Whatever is missing or does not fit raises an error of one
sentence, which says what to do next.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import socket
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from utils.errors import MissingWeightsError, UserError, nearest

RANDOM = "random"
"""Value of ``backbone.weights`` for an untrained network."""

FILE_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".npz", ".tar")
PROJECT_ROOT = Path(__file__).resolve().parents[2]
WITHOUT = "or run without any download with backbone=clip_mini"
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


def needs_weights(what: str, source: str, because: str) -> UserError:
    """Return the sentence for absent weights of ``what``, which come from ``source``."""
    return MissingWeightsError(
        f"{what} needs pretrained weights, but {because}: get {source}, put the file anywhere and "
        f"set backbone.weights=PATH ('{RANDOM}' asks for an untrained network), {WITHOUT}."
    )


def unknown_model(library: str, name: str, known: Iterable[str]) -> UserError:
    """Return the sentence for an architecture that ``library`` does not have."""
    names = list(known)
    return UserError(
        f"backbone.model='{name}' is none of the {len(names)} architectures of {library}."
        f"{nearest(name, names)} '{library}.{'models.' * (library == 'torchvision')}list_models()' "
        "lists them."
    )


def load_state(path: str, what: str, source: str) -> tuple[dict[str, Tensor], bool]:
    """Read a weight file safely.

    Args:
        path: a file, absolute or relative to the working directory or the project's root.
        what: the network, for messages ("Backbone open_clip (ViT-B-32)").
        source: where such a file comes from, for the message when it is missing.

    Returns:
        The tensors by name (wrappers ``state_dict``, ``model`` and the prefix ``module.`` removed),
        and whether the file is one of OpenAI's (then its activation is QuickGELU).

    Raises:
        UserError: no such file, or one that holds anything but tensors.
    """
    file = locate(path)
    if not file.is_file():
        raise needs_weights(what, source, f"'{path}' does not exist")
    if file.suffix == ".safetensors":
        return _read_safetensors(file), False
    if _is_torchscript(file):
        state = _read_torchscript(file)
        return {k: v for k, v in state.items() if k not in _OPENAI_EXTRAS}, True
    state = _unwrap(_read_state_dict(file), file)
    openai = all(name in state for name in _OPENAI_EXTRAS)
    return {k: v for k, v in state.items() if k not in _OPENAI_EXTRAS}, openai


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


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    return any("/code/" in n for n in names) and any(n.endswith("/constants.pkl") for n in names)


def _read_torchscript(file: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):
            return dict(torch.jit.load(str(file), map_location="cpu").state_dict())
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"'{file}' cannot be read as a TorchScript archive: {reason}.") from error


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


@contextlib.contextmanager
def library_errors(what: str, source: str) -> Iterator[None]:
    """Turn a library's failure to fetch or build something into one sentence."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise needs_weights(what, source, f"that failed ({lines[0].rstrip('.')})") from error


def state_fingerprint(source: nn.Module | Mapping[str, Tensor], settings: Mapping[str, Any]) -> str:
    """Return 16 hex digits of SHA-256 over all tensors (name, dtype, shape, bytes) and settings.

    Args:
        source: a module, of which the state dict is taken, or tensors by name; order is immaterial.
        settings: whatever else changes the features; must be representable as JSON.
    """
    state = source.state_dict() if isinstance(source, nn.Module) else source
    total = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()[:16]
