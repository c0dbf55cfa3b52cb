"""``main.py prepare``: from official archives to an index; resumes where it was interrupted.

Fetched and unpacked files keep their published names in the dataset's folder. ``prepare`` adds
``<dataset>.index.h5`` and ``<dataset>.splits.json``, the splits of all protocols by rule, seed,
counts and hash. The folder ``.prepare`` holds its locks and unfinished work.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path

import numpy as np

from common.storage.cache import locked
from dataset.base import ImageSource
from dataset.images import FileImages
from dataset.mat import MatConfig
from dataset.mat import build as build_mat
from dataset.preparation.index import MAT, OFFICIAL, Index, check_rows, index_file, load_index
from dataset.preparation.rows import Rows
from dataset.preparation.scan import file_size, remove_journal, scan
from dataset.preparation.selection import draw, select
from dataset.preparation.source import OfficialFile, Source
from utils.archives import is_archive, unpack, unpacked_size
from utils.downloads import download
from utils.errors import UserError
from utils.files import saying_why, write_json

log = logging.getLogger("hashing")

MARGIN = 64 << 20
"""Bytes of disk kept free beyond the estimate: index and splits."""

_MAT_FILES = ("index.mat", "label.mat")
_RATIO = 200  # text tables compress so far; a larger ratio is an archive bomb
_LEAST_LIMIT = 1 << 28


def prepare(
    source: Source,
    root: Path,
    fetch: bool = False,
    lists: Path | None = None,
    images: Path | None = None,
) -> Index:
    """Fetch (if asked), unpack and index a dataset; return the index.

    Args:
        source: the dataset.
        root: its folder, with archives or unpacked folders in it; created if missing.
        fetch: whether missing archives are downloaded where their host offers them.
        lists: folder of published list files (see :func:`~dataset.preparation.selection.select`).
        images: where the pictures of ``.mat`` files lie, if not below ``root`` nor where these say.

    Raises:
        UserError: archives are missing (names them and where to put them), a full disk, a damaged
            archive or file.
    """
    with saying_why(root):
        root.mkdir(parents=True, exist_ok=True)
    work = root / ".prepare"
    with locked(work / f"{source.name}.lock"):
        layout = find_layout(source, root)
        if layout == OFFICIAL:
            _check_room(source, root, fetch)
            if fetch:
                _fetch(source, root)
            _check_complete(source, root)
            for file in source.files:
                _unpack(file, root)
        if images is not None and layout == OFFICIAL:
            raise UserError(
                f"--images={images} is for {' and '.join(_MAT_FILES)}, but '{root}' holds the "
                f"official files of {source.name}, whose pictures lie beside them."
            )
        rows = source.read(root) if layout == OFFICIAL else read_mat(root, images)
        rows = check_rows(rows, source.name)
        index = _index(source, layout, rows, root, work / f"{source.name}.scan")
        write_json(splits_file(root, source.name), splits(source, index, root, lists))
    return index


def splits_file(root: Path, dataset: str) -> Path:
    """Return the path of the manifests of all protocols of ``dataset``."""
    return root / f"{dataset}.splits.json"


def splits(source: Source, index: Index, root: Path, lists: Path | None = None) -> dict[str, dict]:
    """Return protocol → rule, seed, counts and hash, or the reason why there is no split."""
    summary: dict[str, dict] = {}
    for protocol in source.protocols:
        try:
            manifest = draw(select(source, index, protocol, root, lists), protocol)
        except UserError as error:
            summary[protocol.name] = {"papers": protocol.papers, "missing": str(error)}
            continue
        summary[protocol.name] = {
            "papers": protocol.papers,
            "rule": manifest.rule,
            "seed": protocol.seed,
            "counts": manifest.counts,
            "hash": manifest.hash,
        }
    return summary


def find_layout(source: Source, root: Path) -> str:
    """Return ``mat`` where only ``.mat`` files exist, else ``official``."""
    missing = missing_files(source, root)
    return MAT if missing and all((root / name).is_file() for name in _MAT_FILES) else OFFICIAL


def missing_files(source: Source, root: Path) -> list[OfficialFile]:
    """Return the needed official files that are neither in ``root`` nor unpacked there."""
    return [file for file in source.files if file.needed and not _is_available(file, root)]


def read_mat(root: Path, images: Path | None = None) -> Rows:
    """Return the rows of a folder in the ``.mat`` layout; rows without a label are left out.

    With ``images`` (see :func:`prepare`) paths are absolute.

    Raises:
        UserError: files that :mod:`dataset.mat` refuses, or images in one ``.npy``.
    """
    image_root = None if images is None else str(images.expanduser().resolve())
    config = MatConfig(root=str(root), image_root=image_root, on_unlabelled="drop")
    dataset = build_mat(config, "mat")
    if not isinstance(dataset.images, FileImages):
        raise UserError(
            f"The pictures in '{root}' are one array, which is not indexed; train with dataset=mat "
            f"dataset.root={root} instead."
        )
    paths = dataset.images.names
    if image_root is not None:
        paths = tuple(str(Path(image_root) / path) for path in paths)
    stems = tuple(Path(path).stem for path in paths)
    return Rows(
        keys=stems if len(set(stems)) == len(stems) else paths,
        paths=paths,
        labels=dataset.labels.astype(np.uint8),
        class_names=dataset.class_names,
        texts=None if dataset.texts is None else tuple(dataset.texts),
    )


def picture_root(index: Index) -> Path | None:
    """Return the folder around the pictures where the index has full paths, or None."""
    paths = index.rows.paths
    if not all(Path(path).is_absolute() for path in paths):
        return None
    return Path(os.path.commonpath([os.path.dirname(path) for path in paths]))


def _marker(file: OfficialFile, root: Path) -> Path:
    return root / ".prepare" / f"{file.name}.unpacking"


def _is_unpacked(file: OfficialFile, root: Path) -> bool:
    """Tell whether a file is unpacked completely; until then its marker exists."""
    return not file.lacking(root) and not _marker(file, root).exists()


def _is_available(file: OfficialFile, root: Path) -> bool:
    return _is_unpacked(file, root) or _target(file, root).is_file()


def _target(file: OfficialFile, root: Path) -> Path:
    """Return where a file has to be put."""
    return root / file.name if is_archive(file.name) else root / file.into / file.name


def _check_room(source: Source, root: Path, fetch: bool) -> None:
    """Refuse to start where the disk is too full for the files still to be written."""
    needed, parts = 0, []
    for file in source.files:
        if _is_unpacked(file, root):
            continue
        target = _target(file, root)
        exists = target.is_file()
        if not exists and not (fetch and file.url):
            continue
        if not exists:
            part = target.with_name(f"{target.name}.part")
            download_size = file.size or file.unpacked_size or 0
            needed += max(download_size - (part.stat().st_size if part.is_file() else 0), 0)
            parts.append(f"{file.name} {download_size / 1e9:.1f} GB to fetch")
        if is_archive(file.name):
            size = unpacked_size(target, root / file.into) if exists else None
            unpacked = file.unpacked_size or file.size or (target.stat().st_size if exists else 0)
            needed += size if size is not None else unpacked
            parts.append(f"{(size if size is not None else unpacked) / 1e9:.1f} GB unpacked")
    free = shutil.disk_usage(root).free
    if not needed:
        return
    total = f"{needed / 1e9:.1f} GB"
    log.info("%s: about %s to write, %.1f GB free in '%s'", source.name, total, free / 1e9, root)
    if needed + MARGIN > free:
        raise UserError(
            f"{source.name} needs about {total} more in '{root}' "
            f"({', '.join(parts)}), but {free / 1e9:.1f} GB are free; make room, or give another "
            "--root."
        )


def _fetch(source: Source, root: Path) -> None:
    """Download missing files that have a URL; an error names the file's page and its path."""
    for file in source.files:
        if _is_available(file, root) or file.url is None:
            continue
        target = _target(file, root)
        log.info("fetching %s from %s", file.name, file.url)
        try:
            download(file.url, target, size=file.size, checksum=file.checksum)
        except UserError as error:
            if not file.needed:
                log.warning("%s is left out: %s", file.name, error)
                continue
            raise UserError(
                f"{error} Or get '{file.name}' from {file.page or file.url} and put it at "
                f"'{target}'."
            ) from error


def _check_complete(source: Source, root: Path) -> None:
    """Refuse to continue while needed files are missing; name each and its path."""
    missing = missing_files(source, root)
    if not missing:
        return
    requests = []
    for file in missing:
        contents = ", ".join(path.replace("|", " or ") for path in file.unpacks)
        unpacked = f" (or {contents} unpacked in '{root}')" if contents else ""
        requests.append(
            f"'{_target(file, root)}'{unpacked} from {file.url or file.page or 'its publisher'}"
        )
    again = "; or give --download" if any(file.url for file in missing) else ""
    raise UserError(f"{source.name} is not complete; put there: {'; '.join(requests)}{again}.")


def _unpack(file: OfficialFile, root: Path) -> None:
    archive = root / file.name
    if _is_unpacked(file, root) or not archive.is_file() or not is_archive(file.name):
        return
    size = archive.stat().st_size
    if file.size is not None and size != file.size:
        log.warning(
            "'%s' has %s bytes, the published file %s: another release, or cut short",
            archive, f"{size:,}", f"{file.size:,}",
        )  # fmt: skip
    marker = _marker(file, root)
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()
    log.info("unpacking %s", file.name)
    limit = max(_LEAST_LIMIT, _RATIO * size, 2 * (file.unpacked_size or 0))
    unpack(archive, root / file.into, limit)
    marker.unlink()
    missing = file.lacking(root)
    if missing:
        raise UserError(
            f"'{archive}' does not hold '{missing[0]}'; it is not the published {file.name}."
        )


def _index(source: Source, layout: str, rows: Rows, root: Path, journal: Path) -> Index:
    """Return the index of ``rows``, written if it is new."""
    images, path = source.images(root, rows.paths), index_file(root, source.name)
    with contextlib.suppress(UserError):
        known = load_index(root, source.name)
        current = Index(source.name, layout, rows, known.image_bytes, known.image_digests)
        if current.content == known.content and _same_sizes(images, known):
            log.info("'%s' is up to date", path)
            remove_journal(journal)  # of a process that ended between the index and this
            return known
    scanned = scan(images, journal)
    index = Index(source.name, layout, rows, scanned.sizes, scanned.digests)
    index.save(path)
    remove_journal(journal)
    absent = np.flatnonzero(scanned.sizes < 0)
    if len(absent):
        log.warning(
            "%s of %s pictures are not there, '%s' first",
            f"{len(absent):,}", f"{len(rows):,}", rows.paths[absent[0]],
        )  # fmt: skip
    return index


def _same_sizes(images: ImageSource, index: Index) -> bool:
    """Tell whether every image file is as large as when the index was written."""
    sizes = enumerate(index.image_bytes.tolist())
    return all(file_size(images, row) in (None, size) for row, size in sizes)
