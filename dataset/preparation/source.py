"""What a dataset with official files states: its archives, its rows, its protocols.

A file in ``dataset/sources/`` derives a :class:`Source`, whose :meth:`~Source.read` turns the
official layout into :class:`Rows`, and registers a function that opens what was prepared
(:func:`dataset.preparation.prepared_dataset.open_prepared`). ``main.py prepare`` fetches, unpacks
and indexes it, ``main.py verify`` holds it to its protocols' published figures, and training draws
the split that a :class:`Protocol` describes.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from dataset.base import ImageSource
from dataset.images import FileImages
from dataset.preparation.protocol import Protocol
from dataset.preparation.rows import Attributes, Rows
from utils.errors import unknown_name


@dataclasses.dataclass(frozen=True)
class OfficialFile:
    """A file as its publisher offers it: an archive, or a file that is used as it is.

    Attributes:
        name: of the file, as published (``train2017.zip``).
        unpacks: paths below the root that are there once it is unpacked; one of them missing means
            that it is not. Patterns with ``*`` are accepted, and other names that people unpack it
            under: ``"Flickr|images"``. Empty for a file that is no archive.
        into: folder below the root that it is unpacked into, or stands in.
        url: where anybody may fetch it; None where one has to ask or to click.
        page: where a person finds it.
        size: in bytes, where known.
        checksum: ``sha256:…``, ``sha1:…`` or ``md5:…`` as published; None where none is known.
        unpacked_size: in bytes, roughly; by default the size.
        needed: whether there are no rows without it.
    """

    name: str
    unpacks: tuple[str, ...] = ()
    into: str = ""
    url: str | None = None
    page: str = ""
    size: int | None = None
    checksum: str | None = None
    unpacked_size: int | None = None
    needed: bool = True

    def is_unpacked(self, root: Path) -> bool:
        """Tell whether its content (or the file itself, if it is no archive) is there."""
        return not self.lacking(root)

    def lacking(self, root: Path) -> list[str]:
        """Return which of its contents are not there."""
        inside = self.unpacks or (str(PurePosixPath(self.into) / self.name),)
        return [p for p in inside if not any(any(root.glob(way)) for way in p.split("|"))]


class Source(ABC):
    """A dataset with official files.

    Attributes:
        name: the dataset's word on the command line.
        title: how its authors call it.
        licence: in a few words.
        files: all that has to be there.
        protocols: the first one is the default.
        multi_label: whether a row may carry several labels.
    """

    name: str
    title: str
    licence: str
    files: tuple[OfficialFile, ...]
    protocols: tuple[Protocol, ...]
    multi_label: bool = False

    @abstractmethod
    def read(self, root: Path) -> Rows:
        """Read the official layout below ``root``; pictures are not opened.

        Raises:
            UserError: a file is missing or is not what it should be; names it.
        """

    def attributes(self, root: Path) -> tuple[Attributes, ...]:
        """Read all official statements of the class attributes, which ``verify`` compares.

        Each is held against the index by class name; a dataset whose files state them twice gives
        both.
        """
        return ()

    def list_key(self, path: str) -> str:
        """Return the key of the row that a path in a list file means; by default its stem."""
        return PurePosixPath(path).stem

    def images(self, root: Path, paths: Sequence[str]) -> ImageSource:
        """Return the pictures at ``paths``; overridden where they are not files of their own."""
        return FileImages(paths, root)

    def protocol(self, name: str) -> Protocol:
        """Return the protocol called ``name``.

        Raises:
            UserError: no such; lists the known ones and the nearest.
        """
        known = {protocol.name: protocol for protocol in self.protocols}
        if name not in known:
            raise unknown_name(f"split of {self.name} (dataset.split.name)", name, known)
        return known[name]
