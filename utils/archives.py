"""Unpacking untrusted archives: only plain files are written, and only inside the folder.

A member outside the folder, a link or a device is refused with its name, as is more content than
allowed. Members that exist already, in full, are not written again, so that an interrupted
unpacking is resumed.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from utils.errors import UserError
from utils.files import check_plain_file, saying_why
from utils.progress import progress_bar

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MOST_MEMBERS = 5_000_000
_MIB = 1 << 20
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError)


class _Member(NamedTuple):
    path: PurePosixPath
    size: int
    open: Callable[[], IO[bytes] | None]


def is_archive(name: str) -> bool:
    """Return whether a file's name is that of an archive that can be unpacked."""
    return name.lower().endswith((".zip", *TAR_SUFFIXES))


def unpacked_size(archive: Path, folder: Path) -> int | None:
    """Return how many bytes of a zip are not in ``folder`` yet; None for a tar, which has no index.

    Raises:
        UserError: it is damaged.
    """
    check_plain_file(archive)
    if not zipfile.is_zipfile(archive):
        return None
    try:
        with zipfile.ZipFile(archive) as opened:
            sizes = {folder / info.filename: info.file_size for info in opened.infolist()}
        return sum(size for path, size in sizes.items() if not _is_complete(path, size))
    except (*_BROKEN, OSError) as error:
        raise _damaged(archive, error) from error


def unpack(archive: Path, folder: Path, most_bytes: int) -> int:
    """Unpack a zip or tar archive into ``folder``; return how many files it holds.

    Args:
        archive: zip, or tar without or with gzip, bzip2 or xz, recognised by content.
        folder: created if missing.
        most_bytes: content beyond this is refused.

    Raises:
        UserError: damaged, of an unknown kind, encrypted, a member that leaves the folder or is no
            plain file, too much content, or no room on disk.
    """
    count = written = 0
    check_plain_file(archive)
    try:
        with saying_why(folder):
            for member in _members(archive, most_bytes):
                count += 1
                written += member.size
                if count > MOST_MEMBERS or written > most_bytes:
                    raise UserError(
                        f"'{archive}' unpacks to more than {most_bytes:,} bytes or {MOST_MEMBERS:,}"
                        " files, which is not what it should hold; it was left as it is."
                    )
                _write(archive, member, folder / member.path)
    except (*_BROKEN, NotImplementedError, tarfile.ReadError) as error:
        raise _damaged(archive, error) from error
    return count


def _members(archive: Path, most_bytes: int) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive, most_bytes)
    else:
        yield from _tar_members(archive, most_bytes)


def _zip_members(archive: Path, most_bytes: int) -> Iterator[_Member]:
    """Yield the files of a zip; names, kinds and sizes are checked before the first."""
    with zipfile.ZipFile(archive) as opened:
        infos = []
        for info in opened.infolist():
            path = _inside(info.filename, archive)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _no_plain_file(archive, info.filename)
            if not info.is_dir() and not _is_desktop_file(path):
                infos.append((path, info))
        total = sum(info.file_size for _, info in infos)
        if total > most_bytes:
            raise UserError(
                f"'{archive}' says that it unpacks to {total:,} bytes; at most {most_bytes:,} are "
                "expected of it, so it was left as it is."
            )
        with progress_bar(f"unpacking {archive.name} (MiB)", max(1, total // _MIB)) as advance:
            for path, info in infos:
                yield _Member(path, info.file_size, lambda info=info: opened.open(info))  # type: ignore[misc]
                advance(info.file_size / _MIB)


def _tar_members(archive: Path, most_bytes: int) -> Iterator[_Member]:
    """Yield the files of a tar, each checked before it is yielded: a tar is read front to back."""
    with (
        open(archive, "rb") as raw,
        _open_tar(archive, raw, most_bytes) as opened,
        progress_bar(
            f"unpacking {archive.name} (MiB)", max(1, archive.stat().st_size // _MIB)
        ) as advance,
    ):
        previous = 0
        for info in opened:
            path = _inside(info.name, archive)
            if not (info.isreg() or info.isdir()):
                raise _no_plain_file(archive, info.name)
            if info.isreg() and not _is_desktop_file(path):
                yield _Member(path, info.size, lambda info=info: opened.extractfile(info))  # type: ignore[misc]
            opened.members = []  # type: ignore[attr-defined]  # a million headers are not kept
            position = raw.tell()
            advance((position - previous) / _MIB)
            previous = position


def _open_tar(archive: Path, raw: IO[bytes], most_bytes: int) -> tarfile.TarFile:
    """Open a tar; its first headers are read at once."""
    try:
        return tarfile.open(fileobj=raw, mode="r:*", tarinfo=_bounded_header(archive, most_bytes))
    except tarfile.ReadError as error:
        raise UserError(
            f"'{archive}' is no zip and no tar archive, whatever its name says (a page with an "
            "error message, perhaps); remove it and fetch it again."
        ) from error


def _bounded_header(archive: Path, most_bytes: int) -> type[tarfile.TarInfo]:
    """Return a reader of headers for one archive, which bounds those that tarfile reads whole.

    Long names and PAX headers are content before a member, of any size that they claim.
    """
    kinds = (
        tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
    )  # fmt: skip

    class Header(tarfile.TarInfo):
        total = 0  # bytes of such headers so far

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Header:
            header = super().frombuf(buf, encoding, errors)
            if header.type in kinds:
                cls.total += header.size
                if not 0 <= header.size <= _MIB or cls.total > most_bytes:
                    size = max(header.size, cls.total)
                    raise UserError(
                        f"'{archive}' holds headers of {size:,} bytes, more than names of files "
                        "need; it was left as it is. Such an archive is not the published one."
                    )
            return header

    return Header


def _inside(name: str, archive: Path) -> PurePosixPath:
    """Return a member's path, or refuse one that would leave the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if (
        path.is_absolute()
        or ".." in path.parts
        or "\0" in name
        or re.match(r"[A-Za-z]:", name)
        or not (path.parts or name.strip("./") == "")
    ):
        raise UserError(
            f"'{archive}' holds '{name}', which would be written outside of its folder; it was "
            "left as it is. Such an archive is not the published one."
        )
    return path


def _is_desktop_file(path: PurePosixPath) -> bool:
    """Return whether a member is one of the helper files that desktops add to archives."""
    return "__MACOSX" in path.parts or path.name.startswith("._") or path.name == ".DS_Store"


def _write(archive: Path, member: _Member, target: Path) -> None:
    """Write a member under a temporary name first, so that a file of its name is complete."""
    if target.is_dir():
        raise UserError(f"'{archive}' holds the file '{member.path}', but '{target}' is a folder.")
    if _is_complete(target, member.size):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    source = member.open()
    assert source is not None
    try:
        with source, open(partial, "wb") as stream:
            shutil.copyfileobj(source, stream, _MIB)
        if partial.stat().st_size != member.size:
            raise EOFError(f"'{member.path}' is cut short")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _is_complete(target: Path, size: int) -> bool:
    """Return whether a member was written: a file gets its name when all of it is written."""
    return target.is_file() and not target.is_symlink() and target.stat().st_size == size


def _no_plain_file(archive: Path, name: str) -> UserError:
    return UserError(
        f"'{archive}' holds '{name}', a link or a device; only plain files are unpacked. Unpack it "
        "by hand if you trust it, and run the command again."
    )


def _damaged(archive: Path, error: Exception) -> UserError:
    return UserError(
        f"'{archive}' cannot be unpacked ({error}); it is damaged or cut short: remove it and "
        "fetch it again."
    )
