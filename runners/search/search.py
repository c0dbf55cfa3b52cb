"""``main.py encode`` and ``main.py search``."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.code_files.run_codes import read_codes
from common.codes import pack_codes
from common.storage.cache import cached
from dataset.base import BadImageError, ImageSource
from dataset.images import SUFFIXES, FileImages, SelectedImages
from runners.inputs.loading import load_dataset
from runners.report.gallery import as_uri
from runners.report.page import render
from runners.search.collection import (
    Collection,
    Hits,
    nearest,
    picture_files,
    read_collection,
    text_lines,
    write_collection,
)
from runners.search.encoder import Encoded, Encoder
from utils.errors import UserError
from utils.files import digest, write_text

log = logging.getLogger("hashing")


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        query: the words, or the path of the picture.
        modality: of the query.
        collection: what was searched.
        hits: the nearest rows.
        pictures: of the collection by row, or None for texts.
    """

    query: str
    modality: str
    collection: Collection
    hits: Hits
    pictures: ImageSource | None


def encode_files(
    run: str, images: str | None, texts: str | None, out: str, device: str | None = None
) -> Collection:
    """Encode a folder of pictures or a file of texts and write the codes to ``out``.

    Raises:
        UserError: both or neither, nothing in them, or see :class:`~runners.search.encoder.Encoder`
            and :func:`~runners.search.collection.write_collection`.
    """
    if (images is None) == (texts is None):
        raise UserError("encode takes one of --images DIR and --texts FILE.")
    path = Path(out)
    if path.suffix.lower() not in (".h5", ".hdf5", ".npz"):  # before the work
        raise UserError(f"--out: '{out}' ends in neither .h5 nor .npz.")
    ids = picture_files(images) if images is not None else text_lines(str(texts))
    collection = _encoded(Encoder(run, device), ids, images)
    write_collection(collection, path)
    return dataclasses.replace(collection, file=path)


def _encoded(encoder: Encoder, ids: list[str], images: str | None) -> Collection:
    name = encoder.folder.path.resolve().name
    if images is None:
        packed = pack_codes(encoder.texts(ids).codes)
        return Collection(packed, encoder.bits, ids, "text", run=name)
    folder = str(Path(images).resolve())
    found = encoder.pictures(FileImages(ids, folder))
    _tell_bad(found, ids)
    kept = [ids[row] for row in found.kept]
    return Collection(pack_codes(found.codes), encoder.bits, kept, "image", folder, name)


def _tell_bad(found: Encoded, ids: Sequence[str]) -> None:
    for reason in list(found.bad.values())[:3]:
        log.warning("left out: %s", reason)
    if len(found.bad) > 3:
        log.warning("left out: %d of %d pictures in all", len(found.bad), len(ids))


def search_run(
    run: str, *, query: str | None = None, text: str | None = None, image: str | None = None,
    images: str | None = None, texts: str | None = None, codes: str | None = None,
    top: int = 10, device: str | None = None,
) -> Found:  # fmt: skip
    """Search by words or a picture among pictures, texts, kept codes, or the run's own database.

    Args:
        run: folder of the run whose model encodes.
        query: words, or the path of a picture that exists.
        text: words.
        image: path of a picture.
        images: folder that is searched; its codes are kept in the cache.
        texts: file of texts that is searched, likewise.
        codes: file of ``encode`` that is searched.
        top: how many rows.
        device: where to encode.

    Raises:
        UserError: not one query, more than one thing to search, or see the parts.
    """
    if sum(value is not None for value in (query, text, image)) != 1:
        raise UserError("search takes one of --query, --text and --image.")
    if sum(value is not None for value in (images, texts, codes)) > 1:
        raise UserError("search takes at most one of --images, --texts and --codes.")
    if top < 1:
        raise UserError(f"--top is {top}; at least 1 is needed.")
    if query is not None:
        is_picture = Path(query).suffix.lower() in SUFFIXES and Path(query).is_file()
        text, image = (None, query) if is_picture else (query, None)
    if image is not None and not Path(image).is_file():
        raise UserError(f"--image: '{image}' does not exist.")
    kept = read_collection(Path(codes)) if codes is not None else None
    encoder = Encoder(run, device)
    asked = "text" if text is not None else "image"
    encoder.needs(asked)
    collection, pictures = kept, kept.pictures() if kept is not None else None
    if collection is None:
        collection, pictures = _collection(encoder, images, texts, asked)
    if text is not None:
        code = encoder.texts([text]).codes[0]
    else:
        code = encoder.pictures(FileImages([str(image)], ".")).codes[0]
    hits = nearest(collection, code, top)
    return Found(str(text or image), asked, collection, hits, pictures)


def _collection(
    encoder: Encoder, images: str | None, texts: str | None, asked: str
) -> tuple[Collection, ImageSource | None]:
    """Return the codes of a folder or file, kept in the cache, or of the run's database."""
    if images is None and texts is None:
        return _database(encoder, asked)
    ids = picture_files(images) if images is not None else text_lines(str(texts))
    content = FileImages(ids, str(images)).fingerprint if images is not None else digest(*ids)
    place = str(Path(images).resolve()) if images is not None else ""
    key = digest(encoder.config.hash, encoder.mark, content, place)
    file = cached(
        "codes", f"{key}.h5", lambda path: write_collection(_encoded(encoder, ids, images), path)
    )
    found = read_collection(file)
    return found, found.pictures()


def _database(encoder: Encoder, asked: str) -> tuple[Collection, ImageSource | None]:
    """Return the run's own database: pictures if it hashes them."""
    path = encoder.folder.codes_file
    _, database, _ = read_codes(path)
    modality = "image" if "image" in database.codes else "text"
    dataset = load_dataset(encoder.config)
    if modality == "image":
        ids = [dataset.images.name(int(row)) for row in database.rows]
    else:
        assert dataset.texts is not None
        ids = [dataset.texts[row][0] for row in database.rows]
    packed = pack_codes(database.codes[modality])
    collection = Collection(packed, encoder.bits, ids, modality, run=encoder.folder.path.name)
    if modality == "text":
        return collection, None
    return collection, SelectedImages(dataset.images, database.rows)


def print_found(found: Found) -> None:
    """Print the nearest rows with their distances, and what the search took."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("rank", justify="right")
    table.add_column("distance", justify="right")
    table.add_column("picture" if found.collection.modality == "image" else "text", overflow="fold")
    for rank, (row, distance) in enumerate(
        zip(found.hits.rows, found.hits.distances, strict=True), 1
    ):
        shown = found.collection.ids[row].replace("[", r"\[")
        table.add_row(str(rank), str(distance), shown)
    console = Console()
    console.print(table)
    console.print(
        f"{len(found.collection):,} codes of {found.collection.bits} bits searched in "
        f"{found.hits.seconds * 1000:.1f} ms",
        highlight=False,
    )


def write_search_page(found: Found, path: Path) -> None:
    """Write the query and the nearest rows as an HTML page with their pictures inside."""
    uris: list[str] = []

    def shown(source: ImageSource | None, row: int, word: str) -> dict[str, Any]:
        if source is None:
            return {"row": row, "text": word}
        try:
            uris.append(as_uri(source.decode(row), side=224))
        except (BadImageError, OSError):
            return {"row": row, "name": word}
        return {"row": row, "name": word, "picture": len(uris) - 1}

    query_pictures = FileImages([found.query], ".") if found.modality == "image" else None
    hits = [
        {"distance": distance, **shown(found.pictures, row, found.collection.ids[row])}
        for row, distance in zip(found.hits.rows, found.hits.distances, strict=True)
    ]
    data = {
        "query": shown(query_pictures, 0, found.query), "hits": hits, "pictures": uris,
        "bits": found.collection.bits, "rows": len(found.collection), "run": found.collection.run,
        "seconds": found.hits.seconds,
    }  # fmt: skip
    write_text(path, render(data, "search"))
