"""Datasets with official files: their archives, their rows, their protocols.

A file in ``dataset/sources/`` derives a :class:`Source`, whose :meth:`~Source.read` turns the
official layout into :class:`Rows`, and registers it as a dataset
(:func:`dataset.preparation.prepared_dataset.prepared`). ``main.py prepare`` fetches, unpacks and
indexes it, ``main.py verify`` compares it with its protocols' published numbers, and training draws
the split that a :class:`Protocol` describes.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from dataset.base import ImageSource
from dataset.images import FileImages
from dataset.preparation.protocol import ProtocolSet
from dataset.preparation.rows import Attributes, Rows


@dataclasses.dataclass(frozen=True)
class OfficialFile:
    """A file as its publisher offers it: an archive, or a file that is used as it is.

    Attributes:
        name: of the file, as published (``train2017.zip``).
        unpacks: paths below the root that exist once it is unpacked, all of them. Patterns with
            ``*`` are accepted, and alternative names: ``"Flickr|images"``. Empty for a file that
            is no archive.
        into: folder below the root that it is unpacked into, or lies in.
        url: for download; None where one has to ask or to click.
        page: the web page that offers it.
        size: in bytes, where known.
        checksum: ``sha256:…``, ``sha1:…`` or ``md5:…`` as published; None where none is known.
        unpacked_size: in bytes, roughly; by default the size.
        needed: whether the rows cannot be read without it.
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

    def lacking(self, root: Path) -> list[str]:
        """Return which of its contents (or the file itself, if it is no archive) are missing."""
        contents = self.unpacks or (str(PurePosixPath(self.into) / self.name),)
        return [p for p in contents if not any(any(root.glob(pattern)) for pattern in p.split("|"))]


@dataclasses.dataclass(frozen=True)
class RowKind:
    """What rows of a dataset are like, known without its files.

    Attributes:
        texts: captions of a row; 0: none (a row of tags counts 1).
        attributes: of a class; 0: none.
        image_attributes: whether rows have attributes of their own (``extras``).
        side: of all pictures in pixels; None: photos of several sizes.
    """

    texts: int = 0
    attributes: int = 0
    image_attributes: bool = False
    side: int | None = None


class Source(ProtocolSet, ABC):
    """A dataset with official files.

    Attributes:
        title: its authors' name of it.
        licence: in a few words.
        files: its official files.
        multi_label: whether a row may carry several labels.
        row_kind: see there.
    """

    title: str
    licence: str
    files: tuple[OfficialFile, ...]
    multi_label: bool = False
    row_kind: RowKind = RowKind()

    @abstractmethod
    def read(self, root: Path) -> Rows:
        """Read the official layout below ``root``; images are not opened.

        Raises:
            UserError: a file is missing or broken; names it.
        """

    def attributes(self, root: Path) -> tuple[Attributes, ...]:
        """Read all official statements of the class attributes.

        ``verify`` compares each with the index, by class name.
        """
        return ()

    def list_key(self, path: str) -> str:
        """Return the key of the row that a path in a list file means; by default its stem."""
        return PurePosixPath(path).stem

    def images(self, root: Path, paths: Sequence[str]) -> ImageSource:
        """Return the images at ``paths``; overridden where these are no files."""
        return FileImages(paths, root)
