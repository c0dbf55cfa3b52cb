"""``main.py encode`` and ``main.py search``."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.batch import MODALITIES
from common.code_files.run_codes import read_codes, read_identity
from common.codes import pack_codes
from common.config.plugins import Received
from common.storage.cache import cached
from common.storage.identity import ChangedError
from dataset.base import BadImageError, HashDataset, ImageSource
from dataset.feature_files import fingerprint, read_arrays
from dataset.features import ID_NAMES, row_ids
from dataset.image_cache import tell_forms
from dataset.images import FileImages, SelectedImages
from dataset.picture_walk import is_picture
from dataset.row_features import FEATURE_NAMES, row_features
from runners.inputs.loading import load_dataset
from runners.report.gallery import as_uri
from runners.report.page import render
from runners.search.collection import (
    Collection,
    Hits,
    image_files,
    nearest,
    read_collection,
    text_lines,
    write_collection,
)
from runners.search.encoder import Encoder
from utils.errors import UserError
from utils.files import digest, write_text
from utils.terminal import print_grid, say

log = logging.getLogger("hashing")


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        query: the text, or the path of the image.
        modality: of the query.
        collection: the searched codes.
        hits: the nearest rows.
    """

    query: str
    modality: str
    collection: Collection
    hits: Hits


def encode_files(
    run: str, images: str | None, texts: str | None, out: str, device: str | None = None,
    features: str | None = None, *,
    plugins: Sequence[str] = (), received: Received = "refuse", accept_changed: bool = False,
) -> Collection:  # fmt: skip
    """Encode a folder of images, a file of texts or one of features; write the codes to ``out``.

    ``plugins`` and ``received`` are those of :class:`~runners.search.encoder.Encoder`.

    Raises:
        UserError: not exactly one of them, no input, or see
            :class:`~runners.search.encoder.Encoder` and
            :func:`~runners.search.collection.write_collection`.
    """
    if sum(value is not None for value in (images, texts, features)) != 1:
        raise UserError("encode takes one of --images DIR, --texts FILE and --features FILE.")
    path = Path(out)
    if path.suffix.lower() not in (".h5", ".hdf5", ".npz"):  # before the encoding
        raise UserError(f"--out: '{out}' ends in neither .h5 nor .npz.")
    ids: list[str] = []
    if features is None:  # before the encoder is loaded
        ids = image_files(images) if images is not None else text_lines(str(texts))
    encoder = Encoder(
        run, device, plugins=plugins, received=received, accept_changed=accept_changed
    )
    collection = (
        _encoded(encoder, ids, images) if features is None else _of_features(encoder, features)
    )
    write_collection(collection, path)
    return collection


def _of_features(encoder: Encoder, file: str) -> Collection:
    """Return the codes of a file of features; ``FILE:text`` takes those of texts."""
    path, _, modality = file.rpartition(":")
    if modality not in MODALITIES:
        path, modality = file, ""
    root = Path(path).expanduser()
    arrays = read_arrays(root, (*FEATURE_NAMES, *ID_NAMES))
    features = row_features(arrays, fingerprint(root), path)
    if not modality and len(features.modalities) > 1:
        raise UserError(f"'{path}' has features of both; give {path}:image or {path}:text.")
    modality = modality or features.modalities[0]
    if modality not in features.modalities:
        raise UserError(f"'{path}' has no '{modality}', only {features.modalities[0]}.")
    codes = encoder.encode_features(features, modality)
    given, offsets = row_ids(arrays, len(features), root), features.caption_offsets
    ids = list(given or (f"row {row}" for row in range(len(features))))
    if modality == "text" and offsets is not None:
        ids = [f"{ids[row]} {c}" for row, n in enumerate(np.diff(offsets)) for c in range(n)]
    run = encoder.folder.path.resolve().name
    return Collection(pack_codes(codes), encoder.config.bits, ids, modality, run=run)


def _encoded(encoder: Encoder, ids: list[str], images: str | None) -> Collection:
    run = encoder.folder.path.resolve().name
    bits, model = encoder.config.bits, encoder.fingerprint
    if images is None:
        packed = pack_codes(encoder.encode_texts(ids))
        return Collection(packed, bits, ids, "text", run=run, model=model)
    folder = str(Path(images).resolve())
    pictures = FileImages(ids, folder, colour=encoder.colour)
    codes, errors = encoder.encode_images(pictures)
    tell_forms(pictures)
    for reason in list(errors.values())[:3]:
        log.warning("left out: %s", reason)
    if errors:
        log.warning("left out: %d of %d pictures in all", len(errors), len(ids))
    ids = [name for row, name in enumerate(ids) if row not in errors]
    return Collection(pack_codes(codes), bits, ids, "image", folder, run, model)


def _same_model(collection: Collection, encoder: Encoder) -> None:
    """Refuse codes of another model than the one that encodes the query.

    Raises:
        ChangedError: names both.
    """
    if collection.model != encoder.fingerprint and not encoder.accept_changed:
        raise ChangedError(
            f"--codes: '{collection.file}' holds codes of model {collection.model} (run "
            f"'{collection.run}'), but '{encoder.folder.path}' is model {encoder.fingerprint}; "
            "encode both by the same run, or go on knowingly with --accept-changed."
        )


def search_run(
    run: str, *, query: str | None = None, text: str | None = None, image: str | None = None,
    images: str | None = None, texts: str | None = None, codes: str | None = None,
    top: int = 10, device: str | None = None,
    plugins: Sequence[str] = (), received: Received = "refuse", accept_changed: bool = False,
) -> SearchResult:  # fmt: skip
    """Search by a text or an image among images, texts, a file of codes, or the run's database.

    The arguments are the options of ``main.py search``; ``received`` is ``load`` with ``--trust``.

    Raises:
        UserError: not exactly one query, more than one collection, or see the parts.
    """
    if sum(value is not None for value in (query, text, image)) != 1:
        raise UserError("search takes one of --query, --text and --image.")
    if sum(value is not None for value in (images, texts, codes)) > 1:
        raise UserError("search takes at most one of --images, --texts and --codes.")
    if top < 1:
        raise UserError(f"--top is {top}; at least 1 is needed.")
    if query is not None:
        is_image = is_picture(Path(query))
        text, image = (None, query) if is_image else (query, None)
    if image is not None and not Path(image).is_file():
        raise UserError(f"--image: '{image}' does not exist.")
    collection = read_collection(Path(codes)) if codes is not None else None
    encoder = Encoder(
        run, device, plugins=plugins, received=received, accept_changed=accept_changed
    )
    if collection is not None and collection.model:
        _same_model(collection, encoder)
    modality = "text" if text is not None else "image"
    encoder.require(modality)
    if collection is None:
        collection = _collection(encoder, images, texts)
    if text is not None:
        code = encoder.encode_texts([text])[0]
    else:
        code = encoder.encode_images(FileImages([str(image)], ".", colour=encoder.colour))[0][0]
    return SearchResult(str(text or image), modality, collection, nearest(collection, code, top))


def _collection(encoder: Encoder, images: str | None, texts: str | None) -> Collection:
    """Return the cached codes of a folder or file, or those of the run's database."""
    if images is None and texts is None:
        return _database(encoder)
    ids = image_files(images) if images is not None else text_lines(str(texts))
    content = digest(*ids)
    if images is not None:
        content = FileImages(ids, str(images), colour=encoder.colour).fingerprint
    folder = str(Path(images).resolve()) if images is not None else ""
    key = digest(encoder.config.hash, encoder.fingerprint, content, folder)
    file = cached(
        "codes", f"{key}.h5", lambda path: write_collection(_encoded(encoder, ids, images), path)
    )
    return read_collection(file)


def _database(encoder: Encoder) -> Collection:
    """Return the database of the run: images if it hashes them, else texts."""
    file = encoder.folder.codes_file
    encoder.check(read_identity(file) or encoder.folder.identity, f"'{file}'")
    _, database, _ = read_codes(file)
    modality = "image" if "image" in database.codes else "text"
    dataset, images = load_dataset(encoder.config), None
    if modality == "image":
        images = SelectedImages(dataset.images, database.rows)
        ids = [dataset.images.name(int(row)) for row in database.rows]
    else:
        ids = [_called(dataset, int(row)) for row in database.rows]
    packed = pack_codes(database.codes[modality])
    run = encoder.folder.path.name
    return Collection(packed, encoder.config.bits, ids, modality, run=run, images=images)


def _called(dataset: HashDataset, row: int) -> str:
    """Return the first text of a row, or its name where the dataset has features."""
    return dataset.images.name(row) if dataset.texts is None else dataset.texts[row][0]


def print_result(result: SearchResult) -> None:
    """Print the nearest rows with their distances, and the duration of the search."""
    collection, hits = result.collection, result.hits
    rows = [
        (str(rank), str(distance), collection.ids[row])
        for rank, (row, distance) in enumerate(zip(hits.rows, hits.distances, strict=True), 1)
    ]
    kind = "picture" if collection.modality == "image" else "text"
    print_grid(("rank", "distance", kind), rows, right=(0, 1))
    say(
        f"{len(collection):,} codes of {collection.bits} bits searched in "
        f"{hits.seconds * 1000:.1f} ms"
    )


def write_search_page(result: SearchResult, path: Path) -> None:
    """Write an HTML page of the query and the nearest rows, with their images embedded."""
    collection, uris = result.collection, list[str]()

    def entry(source: ImageSource | None, row: int, text: str) -> dict[str, Any]:
        if source is None:
            return {"row": row, "text": text}
        try:
            uris.append(as_uri(source.decode(row), side=224))
        except (BadImageError, OSError):
            return {"row": row, "name": text}
        return {"row": row, "name": text, "picture": len(uris) - 1}

    query_images = (
        FileImages([result.query], ".", colour="as_seen") if result.modality == "image" else None
    )
    hits = [
        {"distance": distance, **entry(collection.images, row, collection.ids[row])}
        for row, distance in zip(result.hits.rows, result.hits.distances, strict=True)
    ]
    data = {
        "query": entry(query_images, 0, result.query), "hits": hits, "pictures": uris,
        "bits": collection.bits, "rows": len(collection), "run": collection.run,
        "seconds": result.hits.seconds,
    }  # fmt: skip
    write_text(path, render(data, "search"))
