"""Finding models on disk or on the hub, and telling one from another.

A tag is fetched into the hub's own cache, and from then on treated as the folder that it lies in.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import digest

SINGLE_FILE = (".safetensors", ".ckpt")
_TAG = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_END = 1 << 20  # bytes read at either end of a large file


def find(given: str, option: str, marker: str, kind: str, fetch: Callable[[str], str]) -> Path:
    """Return the folder or single file that ``given`` means, fetching a tag from the hub.

    Args:
        given: a path or a tag.
        option: which option it was given by, for messages.
        marker: file that a folder of this kind of model must have.
        kind: what is needed, in words.
        fetch: downloads a tag and returns the folder.

    Raises:
        UserError: there is no such path, it is another kind of model, or the hub has no such tag or
            is out of reach.
    """
    found = check(given, option, marker, kind)
    if found is not None:
        return found
    _quiet()
    try:
        folder = Path(fetch(given))
    except Exception as error:  # the hub's clients fail in many ways
        raise UserError(
            f"{option} {given} is no folder here, and the model hub does not give it "
            f"({_short(error)}); give the path of {kind}."
        ) from error
    if not (folder / marker).is_file():
        raise UserError(f"{option} {given} on the model hub is not {kind}: it has no {marker}.")
    return folder


def check(given: str, option: str, marker: str, kind: str) -> Path | None:
    """Return the path that ``given`` is, or None for a tag; nothing is loaded or fetched.

    Raises:
        UserError: as :func:`find`, but for what only the hub knows.
    """
    path = Path(given).expanduser()
    if path.is_dir():
        if not (path / marker).is_file():
            raise UserError(f"{option}: '{path}' is not {kind}: it has no {marker}.")
        return path
    if path.is_file():
        if path.suffix.lower() not in SINGLE_FILE or marker != "model_index.json":
            raise UserError(f"{option}: '{path}' is a file; {kind} is needed.")
        return path
    if path.suffix.lower() in SINGLE_FILE or not _TAG.fullmatch(given):
        raise UserError(f"{option}: '{path}' does not exist; {kind} is needed.")
    return None


def fetch(tag: str) -> str:
    """Download a model of transformers or diffusers from the hub; return its folder."""
    from huggingface_hub import snapshot_download

    return snapshot_download(tag, ignore_patterns=["*.h5", "*.msgpack", "*.onnx"])


@contextlib.contextmanager
def loading(given: str, option: str, kind: str) -> Iterator[None]:
    """Turn whatever goes wrong while a model is loaded into one sentence; keep libraries quiet."""
    _quiet()
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a wrong or broken model fails in as many ways as there are parts
        raise UserError(f"{option} {given} cannot be loaded as {kind}: {_short(error)}") from error


def _quiet() -> None:
    import diffusers
    import transformers

    diffusers.utils.logging.set_verbosity(logging.CRITICAL)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def fingerprint(path: Path) -> str:
    """Return a hash of a model: names and sizes of its files and the bytes at their ends.

    Reading all of some gigabytes would take longer than painting the first pictures.
    """
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    parts: list[str | bytes] = []
    for file in files:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.suffix
        if any(part.startswith(".") for part in Path(name).parts) or name.endswith(".md"):
            continue
        size = file.stat().st_size
        with open(file, "rb") as stream:
            parts += [name, str(size), stream.read(_END)]
            if size > _END:
                stream.seek(max(size - _END, _END))
                parts.append(stream.read(_END))
    return digest(*parts)


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a model's JSON file, or ``{}`` where there is none to read."""
    with contextlib.suppress(OSError, ValueError):
        value = json.loads(path.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else {}
    return {}


def of_the_hub(error: BaseException | None) -> bool:
    """Tell whether an error, or one that it came from, says that the hub could not be asked."""
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
