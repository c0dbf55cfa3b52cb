"""The folder that ``generate`` fills: pictures, lines of JSON, and a manifest of what made them.

A picture is renamed into place when it is whole, a line is appended when its item is done, so after
a kill at any instant the same command goes on with what is missing. The manifest names for each
part of the folder all that decides its content; a part is only added to by a command that agrees.
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
from utils.files import atomic_path, saying_why, write_json

FORMAT = 1
LIBRARIES = ("torch", "diffusers", "transformers", "pillow")
BYTES_PER_PIXEL = 3  # of a PNG, at most: noise; photos take about half of it
BYTES_PER_LINE = 250


class Lines:
    """A ``.jsonl`` file with one object per item.

    Attributes:
        entries: the objects by the value of ``key``; a later line replaces an earlier one.
    """

    def __init__(self, path: Path, key: str) -> None:
        """Read what is there; a last line that was cut off is passed over.

        Raises:
            UserError: another line is broken.
        """
        self.path, self.key = path, key
        self.entries: dict[Any, dict[str, Any]] = {}
        self._whole = 0  # bytes up to the end of the last whole line
        data = path.read_bytes() if path.is_file() else b""
        lines = data.splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                whole = line.endswith(b"\n")
                self.entries.update({entry[key]: entry} if whole else {})
            except (ValueError, KeyError, TypeError) as error:
                if number < len(lines):
                    raise UserError(
                        f"'{path}' line {number} is not an object with '{key}'; delete the line or "
                        "the file, and the same command makes it again."
                    ) from error
                whole = False
            self._whole += len(line) if whole else 0
        self._cut = self._whole < len(data)

    def repair(self) -> None:
        """Remove a last line that was cut off, if there is one; needed before :meth:`append`."""
        if self._cut:
            with saying_why(self.path), open(self.path, "ab") as stream:
                stream.truncate(self._whole)
            self._cut = False

    def append(self, entries: Sequence[dict[str, Any]]) -> None:
        """Add lines and see them onto the disk."""
        assert not self._cut
        with saying_why(self.path), open(self.path, "ab") as stream:
            for entry in entries:
                stream.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.entries.update({entry[self.key]: entry for entry in entries})


class OutputFolder:
    """``DIR`` of one method and one dataset."""

    def __init__(self, path: Path, method: str, dataset: dict[str, Any]) -> None:
        """Read the manifest, if there is one.

        Args:
            path: the folder; need not be there.
            method: whose needs it serves.
            dataset: what the rows are: JSON values.

        Raises:
            UserError: the folder belongs to another method or dataset, or is none of ours.
        """
        self.path = path
        self.manifest_file = path / "manifest.json"
        self.manifest: dict[str, Any] = {
            "format": FORMAT, "method": method, "dataset": dataset, "parts": {},
            "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        }  # fmt: skip
        if self.manifest_file.is_file():
            self._read(method, dataset)
        elif path.exists() and (not path.is_dir() or _visible(path)):
            raise UserError(
                f"--out: '{path}' is not empty and has no manifest.json, so it was not filled by "
                "generate; give another folder."
            )

    def _read(self, method: str, dataset: dict[str, Any]) -> None:
        try:
            found = json.loads(self.manifest_file.read_text(encoding="utf-8"))
            known = found["format"] == FORMAT
            theirs = {"method": found["method"], **found["dataset"]}
            parts = dict(found["parts"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(
                f"'{self.manifest_file}' cannot be read ({error}); give another --out."
            ) from error
        if not known:
            raise UserError(f"'{self.manifest_file}' has another format; give another --out.")
        self._agree("pictures and captions", theirs, {"method": method, **dataset})
        self.manifest["parts"] = parts

    def check(self, part: str, identity: dict[str, Any]) -> None:
        """Refuse to add to ``part`` what is made otherwise.

        Raises:
            UserError: names what differs.
        """
        if part in self.manifest["parts"]:
            self._agree(part, self.manifest["parts"][part]["made_by"], identity)

    def _agree(self, what: str, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
        for key in {**theirs, **ours}:
            if key in ("model", "captioner") and "fingerprint" in theirs and "fingerprint" in ours:
                continue  # the same model may lie elsewhere
            if theirs.get(key) != ours.get(key):
                raise UserError(
                    f"'{self.path}' holds {what} with {key}={_told(theirs.get(key))}, and this "
                    f"command has {key}={_told(ours.get(key))}; give the same, or another --out."
                )

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder for this process alone; clear what a killed one left half-done."""
        with locked(self.path / ".lock"):
            for left in self.path.rglob(".*.png.*"):
                shutil.rmtree(left, ignore_errors=True)
            yield

    def record(
        self, part: str, identity: dict[str, Any], done: int, wanted: int, **more: Any
    ) -> None:
        """Write into the manifest what makes ``part``, how far it is, and ``more`` about it."""
        told = {"made_by": identity, "done": done, "wanted": wanted, **more}
        self.manifest["parts"][part] = told
        write_json(self.manifest_file, self.manifest)

    @contextlib.contextmanager
    def recording(
        self, part: str, identity: dict[str, Any], done: Callable[[], int], wanted: int, **more: Any
    ) -> Iterator[None]:
        """Record ``part`` before the block and after it, also after an error."""
        self.record(part, identity, done(), wanted, **more)
        try:
            yield
        finally:
            self.record(part, identity, done(), wanted, **more)

    def made_by(self, part: str) -> dict[str, Any] | None:
        """Return what made ``part``, or None when nothing did yet."""
        return self.manifest["parts"].get(part, {}).get("made_by")


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a PNG so that nobody ever sees half of it."""
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def space(path: Path) -> int:
    """Return the free bytes where ``path`` is or will be."""
    there = path.absolute()
    while not there.is_dir() and there != there.parent:
        there = there.parent
    with saying_why(path, "look at"):
        return shutil.disk_usage(there).free


def check_space(path: Path, needed: int) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        UserError: says how much is needed and how much is free.
    """
    free = space(path)
    if needed > free:
        raise UserError(
            f"--out: up to {readable(needed)} may be needed, and '{path}' has {readable(free)} "
            "free; make room, choose another folder, or give --limit."
        )


def readable(size: int) -> str:
    """Return a number of bytes in words.

    >>> readable(999), readable(1_500_000), readable(2_000_000_000)
    ('999 bytes', '1.5 MB', '2.0 GB')
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


def _visible(path: Path) -> bool:
    return any(not entry.name.startswith(".") for entry in path.iterdir())


def _told(value: Any) -> str:
    return "nothing" if value is None else str(value)
