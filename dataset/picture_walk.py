"""The files below a folder of pictures, and which links among them are followed.

A link to a file is followed. A link to a folder is followed where it leads out of the folder that
is searched, once: class folders may so lie on another disk. One that leads into the searched folder
or around it, or where another has led already, would list the same files again, perhaps under
another class; it is left out, which is told.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

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


def _is_around(outer: str, inner: str) -> bool:
    return os.path.commonpath([outer, inner]) == outer
