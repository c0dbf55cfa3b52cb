"""The folder that ``generate`` fills: images, lines of JSON, and a manifest of what produced them.

An image is written under another name and renamed, a line is appended when its item is done, so
after a kill at any time the same command resumes with what is missing. The manifest names for each
part of the folder everything that decides its content; a command that differs is refused.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from common.storage.cache import locked
from utils.errors import UserError
from utils.files import atomic_path, free_space, readable, saying_why, write_json

FORMAT = 1
LIBRARIES = ("torch", "diffusers", "transformers", "pillow")
BYTES_PER_PIXEL = 3  # upper bound for a PNG (noise); photos take about half
BYTES_PER_LINE = 250


class Lines:
    """A ``.jsonl`` file with one object per item.

    Attributes:
        entries: the objects by the value of ``key``; a later line replaces an earlier one.
    """

    def __init__(self, path: Path, key: str) -> None:
        """Read the file; an incomplete last line is skipped.

        Raises:
            UserError: another line is damaged.
        """
        self.path, self.key = path, key
        self.entries: dict[Any, dict[str, Any]] = {}
        self._complete_bytes = 0  # up to the end of the last complete line
        data = path.read_bytes() if path.is_file() else b""
        lines = data.splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                complete = line.endswith(b"\n")
                self.entries.update({entry[key]: entry} if complete else {})
            except (ValueError, KeyError, TypeError) as error:
                if number < len(lines):
                    raise UserError(
                        f"'{path}' line {number} is not an object with '{key}'; delete the line or "
                        "the file, and the same command makes it again."
                    ) from error
                complete = False
            self._complete_bytes += len(line) if complete else 0
        self._is_cut = self._complete_bytes < len(data)

    def repair(self) -> None:
        """Remove an incomplete last line; needed before :meth:`append`."""
        if self._is_cut:
            with saying_why(self.path), open(self.path, "ab") as stream:
                stream.truncate(self._complete_bytes)
            self._is_cut = False

    def append(self, entries: Sequence[dict[str, Any]]) -> None:
        """Add lines and flush them to the disk."""
        assert not self._is_cut
        with saying_why(self.path), open(self.path, "ab") as stream:
            for entry in entries:
                stream.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.entries.update({entry[self.key]: entry for entry in entries})


class OutputFolder:
    """``--out`` of one method and one dataset."""

    def __init__(self, path: Path, method: str, dataset: dict[str, Any]) -> None:
        """Read the manifest of a folder that need not exist; ``dataset`` says what the rows are.

        Raises:
            UserError: the folder is of another method or dataset, or not of ``generate``.
        """
        self.path = path
        self.manifest_file = path / "manifest.json"
        self.manifest: dict[str, Any] = {
            "format": FORMAT, "method": method, "dataset": dataset, "parts": {},
            "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        }  # fmt: skip
        if self.manifest_file.is_file():
            self._read(method, dataset)
        elif path.exists() and (not path.is_dir() or any(path.glob("[!.]*"))):
            raise UserError(
                f"--out: '{path}' is not empty and has no manifest.json, so it was not filled by "
                "generate; give another folder."
            )

    def _read(self, method: str, dataset: dict[str, Any]) -> None:
        try:
            manifest = json.loads(self.manifest_file.read_text(encoding="utf-8"))
            is_known = manifest["format"] == FORMAT
            source = {"method": manifest["method"], **manifest["dataset"]}
            parts = dict(manifest["parts"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(
                f"'{self.manifest_file}' cannot be read ({error}); give another --out."
            ) from error
        if not is_known:
            raise UserError(f"'{self.manifest_file}' has another format; give another --out.")
        self._compare("pictures and captions", source, {"method": method, **dataset})
        self.manifest["parts"] = parts

    def check(self, part: str, identity: dict[str, Any]) -> None:
        """Refuse to add to ``part`` what has another identity.

        Raises:
            UserError: names what differs.
        """
        if part in self.manifest["parts"]:
            self._compare(part, self.manifest["parts"][part]["made_by"], identity)

    def _compare(self, what: str, old: dict[str, Any], new: dict[str, Any]) -> None:
        for key in {**old, **new}:
            if key in ("model", "captioner") and "fingerprint" in old and "fingerprint" in new:
                continue  # the same model may have another path
            if old.get(key) != new.get(key):
                before, now = ("nothing" if v is None else v for v in (old.get(key), new.get(key)))
                raise UserError(
                    f"'{self.path}' holds {what} with {key}={before}, and this "
                    f"command has {key}={now}; give the same, or another --out."
                )

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Lock the folder for this process; remove incomplete files of a killed one."""
        with locked(self.path / ".lock"):
            for temporary in self.path.rglob(".*.png.*"):
                shutil.rmtree(temporary, ignore_errors=True)
            yield

    def record(
        self, part: str, identity: dict[str, Any], done: int, total: int, **more: Any
    ) -> None:
        """Write into the manifest what produces ``part``, its progress, and ``more`` fields."""
        record = {"made_by": identity, "done": done, "wanted": total, **more}
        self.manifest["parts"][part] = record
        write_json(self.manifest_file, self.manifest)

    @contextlib.contextmanager
    def recording(
        self, part: str, identity: dict[str, Any], done: Callable[[], int], total: int, **more: Any
    ) -> Iterator[None]:
        """Record ``part`` before the block and after it, also after an error."""
        self.record(part, identity, done(), total, **more)
        try:
            yield
        finally:
            self.record(part, identity, done(), total, **more)

    def made_by(self, part: str) -> dict[str, Any] | None:
        """Return the identity of what produced ``part``, or None before."""
        return self.manifest["parts"].get(part, {}).get("made_by")


def save_image(image: Image.Image, path: Path) -> None:
    """Write a PNG atomically."""
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def check_space(path: Path, needed: int) -> None:
    """Refuse what the disk cannot hold.

    Raises:
        UserError: names the needed and the free space.
    """
    free = free_space(path)
    if needed > free:
        raise UserError(
            f"--out: up to {readable(needed)} may be needed, and '{path}' has {readable(free)} "
            "free; make room, choose another folder, or give --limit."
        )
