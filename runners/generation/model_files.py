"""Models on disk or on the hub, and what identifies them.

A tag is fetched into the hub's own cache and from then on treated as its folder there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common.storage.contents import content_digest, content_digests
from utils.errors import UserError
from utils.files import digest

SINGLE_FILE = (".safetensors", ".ckpt")
_TAG = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


def find(name: str, option: str, marker: str, kind: str, fetch: Callable[[str], str]) -> Path:
    """Return the folder or single file that ``name`` means, fetching a tag from the hub.

    Args:
        name: a path or a tag.
        option: of the command line, for messages.
        marker: a file that a folder of this kind of model has.
        kind: what is needed, in words.
        fetch: downloads a tag and returns the folder.

    Raises:
        UserError: no such path, another kind of model, or a hub without the tag or out of reach.
    """
    path = check(name, option, marker, kind)
    if path is not None:
        return path
    _silence_libraries()
    try:
        folder = Path(fetch(name))
    except Exception as error:  # the hub's clients raise many types
        raise UserError(
            f"{option} {name} is no folder here, and the model hub does not give it "
            f"({_short(error)}); give the path of {kind}."
        ) from error
    if not (folder / marker).is_file():
        raise UserError(f"{option} {name} on the model hub is not {kind}: it has no {marker}.")
    return folder


def check(name: str, option: str, marker: str, kind: str) -> Path | None:
    """Return the path that ``name`` is, or None for a tag; nothing is loaded or fetched.

    Raises:
        UserError: as :func:`find`, except for the hub.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / marker).is_file():
            raise UserError(f"{option}: '{path}' is not {kind}: it has no {marker}.")
        return path
    if path.is_file():
        if path.suffix.lower() not in SINGLE_FILE or marker != "model_index.json":
            raise UserError(f"{option}: '{path}' is a file; {kind} is needed.")
        return path
    if path.suffix.lower() in SINGLE_FILE or not _TAG.fullmatch(name):
        raise UserError(f"{option}: '{path}' does not exist; {kind} is needed.")
    return None


def fetch(tag: str) -> str:
    """Download a model of transformers or diffusers from the hub; return its folder."""
    from huggingface_hub import snapshot_download

    return snapshot_download(tag, ignore_patterns=["*.h5", "*.msgpack", "*.onnx"])


@contextlib.contextmanager
def loading(name: str, option: str, kind: str) -> Iterator[None]:
    """Turn any error of loading a model into one sentence; silence the libraries' logs."""
    _silence_libraries()
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a wrong or broken model raises many types
        raise UserError(f"{option} {name} cannot be loaded as {kind}: {_short(error)}") from error


def _silence_libraries() -> None:
    import diffusers
    import transformers

    diffusers.utils.logging.set_verbosity(logging.CRITICAL)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def fingerprint(path: Path) -> str:
    """Return a hash of a model: names and content of its files, which are read once."""
    if not path.is_dir():
        return digest(path.suffix, content_digest(path))
    files = {p.relative_to(path).as_posix(): p for p in sorted(path.rglob("*")) if p.is_file()}
    for name in list(files):
        if any(part.startswith(".") for part in Path(name).parts) or name.endswith(".md"):
            del files[name]
    contents = content_digests(list(files.values()))
    return digest(*(part for pair in zip(files, contents, strict=True) for part in pair))


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a model's JSON file, or ``{}`` where it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        value = json.loads(path.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else {}
    return {}


def is_hub_error(error: BaseException | None) -> bool:
    """Return whether an error, or one that caused it, is of a client of the hub."""
    while error is not None:
        if type(error).__module__.split(".")[0] in ("huggingface_hub", "httpx", "requests"):
            return True
        error = error.__cause__ or error.__context__
    return False


def _short(error: BaseException) -> str:
    """Return the first line of an error, without a full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    return (first if len(first) <= 200 else f"{first[:200]}…").rstrip(".")
