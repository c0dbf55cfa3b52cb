"""The files below a folder of pictures, and which links among them are followed.

A link to a file is followed. A link to a folder is followed where it leads out of the folder that
is searched, once: class folders may so lie on another disk. One that leads into the searched folder
or around it, or where another has led already, would list the same files again, perhaps under
another class; it is left out, which is told.

A file whose name has the ending of an image is taken for one; any other is opened, and is one if
its content is (``.jfif``, ``.avif``, or no ending at all). Names that begin with a dot are a
system's own.
"""

from __future__ import annotations

import functools
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from PIL import Image

from dataset.images import SUFFIXES
from utils.files import special_kind

FORMATS = (
    "JPEG", "JPEG2000", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "AVIF", "PPM", "QOI",
    "SGI",
)  # fmt: skip
"""Formats known by content alone: no vector graphics, nothing that only looks like a picture."""
log = logging.getLogger("hashing")


def walk_files(root: Path) -> list[str]:
    """Return the paths of all files below ``root``, relative to it, with forward slashes."""
    searched = [os.path.realpath(root)]
    left_out: list[str] = []
    files: list[str] = []
    for folder, names, entries in os.walk(root, followlinks=True):
        prefix = Path(folder).relative_to(root)
        files += [(prefix / entry).as_posix() for entry in entries]
        names.sort()
        for name in list(names):
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                continue
            target = os.path.realpath(path)
            if any(_is_around(target, one) or _is_around(one, target) for one in searched):
                left_out.append((prefix / name).as_posix())
                names.remove(name)
            else:
                searched.append(target)
    if left_out:
        log.warning(
            "'%s': %d links to folders are not followed, for they lead to what is searched anyhow: "
            "%s", root, len(left_out), ", ".join(left_out[:3]) + (", …" if left_out[3:] else ""),
        )  # fmt: skip
    return files


def pictures_among(
    files: Iterable[str], open_file: Callable[[str], IO[bytes]]
) -> tuple[list[str], list[str]]:
    """Return the pictures among ``files``, sorted, and what is none; hidden files are in neither.

    ``open_file`` opens one of ``files`` for reading bytes.
    """
    pictures: list[str] = []
    others: list[str] = []
    for file in sorted(files):
        parts = PurePosixPath(file).parts
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            continue
        by_name = file.lower().endswith(SUFFIXES)
        (pictures if by_name or _opens(file, open_file) else others).append(file)
    return pictures, others


def pictures_below(root: Path) -> tuple[list[str], list[str]]:
    """Return the pictures below ``root``, relative to it, and what is none."""
    return pictures_among(walk_files(root), lambda file: _open_plain(root / file))


def is_picture(path: Path) -> bool:
    """Tell whether there is a file that is a picture by its ending or by its content."""
    if not path.is_file():
        return False
    return path.name.lower().endswith(SUFFIXES) or _opens(str(path), lambda _: _open_plain(path))


def tell_left_out(where: str, others: Sequence[str]) -> None:
    """Tell how many files are no pictures, by their endings, and the first of them."""
    if others:
        endings = Counter(PurePosixPath(file).suffix.lower() or "without ending" for file in others)
        log.warning(
            "%s: %d files that cannot be read as a picture are left out (%s): %s",
            where, len(others), ", ".join(f"{n} {name}" for name, n in endings.most_common(6)),
            ", ".join(others[:3]) + (", …" if others[3:] else ""),
        )  # fmt: skip


def _open_plain(path: Path) -> IO[bytes]:
    if kind := special_kind(path):
        raise OSError(f"it is {kind}")
    return path.open("rb")


@functools.cache
def _formats() -> list[str]:
    """Return those of FORMATS that this Pillow has; it does not pass over an unknown one."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _opens(file: str, open_file: Callable[[str], IO[bytes]]) -> bool:
    """Tell whether the content of a file begins as that of a picture does."""
    try:
        with open_file(file) as stream, Image.open(stream, formats=_formats()):
            return True
    except Exception:  # what is no picture makes decoders and zipfile fail in many ways
        return False


def _is_around(outer: str, inner: str) -> bool:
    return os.path.commonpath([outer, inner]) == outer
