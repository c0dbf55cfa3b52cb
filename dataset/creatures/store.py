"""Generate the rows of a view once, on all cores, and read them from the cache.

Every row has its own random generator, seeded by (seed, view, row), so that its image depends
neither on the number of processes nor on the number of rows.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from common.storage.cache import cached
from common.storage.contents import content_digest
from dataset.creatures.drawing import SIZE
from dataset.image_cache import start_npy
from utils.errors import UserError
from utils.files import digest, write_json
from utils.progress import progress_bar

VERSION = 2
"""Part of every cache key: raise it whenever a change of the code changes an image or a caption."""


@dataclasses.dataclass(frozen=True)
class View:
    """How one dataset is generated, row by row.

    Attributes:
        name: its registered name, part of the cache key.
        number: part of the random seed: another number, other rows.
        class_names: its C classes.
        image: (row, generator) → uint8 [64,64,3].
        labels: (row, generator) → names of the row's classes; gets a generator like the image's.
        captions: (row, generator like the image's, another one) → captions by style, or None.
    """

    name: str
    number: int
    class_names: tuple[str, ...]
    image: Callable[[int, np.random.Generator], np.ndarray]
    labels: Callable[[int, np.random.Generator], set[str]]
    captions: (
        Callable[[int, np.random.Generator, np.random.Generator], dict[str, tuple[str, ...]]] | None
    ) = None

    def generator(self, seed: int, row: int, *stream: int) -> np.random.Generator:
        """Return the random generator of a row; further numbers give independent ones."""
        return np.random.default_rng([seed, self.number, row, *stream])


@dataclasses.dataclass(frozen=True)
class GeneratedRows:
    """A generated view: images uint8 [N,64,64,3] (memory-mapped), labels float32 [N,C]."""

    images: np.ndarray
    labels: np.ndarray
    captions: dict[str, list[tuple[str, ...]]]
    fingerprint: str


def load_view(view: View, seed: int, rows: int, min_rows: int) -> GeneratedRows:
    """Return ``rows`` rows of ``view``, from the cache or generated now.

    Raises:
        UserError: a negative seed, or fewer rows than ``min_rows``.
    """
    if seed < 0:
        raise UserError(f"dataset.seed={seed}: a whole number from 0 on is needed.")
    if rows < min_rows:
        raise UserError(
            f"dataset.rows={rows}: {view.name} needs at least {min_rows} rows, so that each of its "
            f"{len(view.class_names)} classes has some."
        )
    key = digest(view.name, str(seed), str(rows), str(VERSION))
    folder = cached("creatures", key, lambda path: build(view, seed, rows, path))
    captions = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
    return GeneratedRows(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        labels=np.load(folder / "labels.npy").astype(np.float32),
        captions={style: [tuple(row) for row in texts] for style, texts in captions.items()},
        fingerprint=content_digest(folder / "images.npy"),
    )


def build(view: View, seed: int, rows: int, folder: Path, processes: int | None = None) -> None:
    """Write ``images.npy``, ``labels.npy`` and ``captions.json`` into a new ``folder``.

    ``processes`` share the work; None = as many as help.
    """
    folder.mkdir()
    _draw_all(view, seed, rows, folder / "images.npy", processes or _useful_processes(rows))
    labels = np.zeros((rows, len(view.class_names)), np.uint8)
    captions: dict[str, list[tuple[str, ...]]] = {}
    for row in range(rows):
        names = view.labels(row, view.generator(seed, row))
        labels[row, [view.class_names.index(name) for name in names]] = 1
        if view.captions is not None:
            texts = view.captions(row, view.generator(seed, row), view.generator(seed, row, 1))
            for style, text in texts.items():
                captions.setdefault(style, []).append(text)
    np.save(folder / "labels.npy", labels)
    write_json(folder / "captions.json", captions)


def _useful_processes(rows: int) -> int:
    """Return how many processes to draw with: the cores there are, but one for a small job.

    Only Linux forks, where it is safe for children that only draw; a daemon (a worker of another
    pool) may not have children.
    """
    if sys.platform != "linux" or multiprocessing.current_process().daemon or rows < 500:
        return 1
    return min(8, len(os.sched_getaffinity(0)))


def _draw_all(view: View, seed: int, rows: int, path: Path, processes: int) -> None:
    """Draw all images into the array file ``path``; this process draws a share and reports it.

    The helpers write into the same memory-mapped file and wait for no queue: if this process is
    killed, they end by themselves and release the cache's lock.
    """
    with path.open("wb") as stream:
        start_npy(stream, (rows, SIZE, SIZE, 3))
    images = np.load(path, mmap_mode="r+")

    def draw(share: range, advance: Callable[[], None] = lambda: None) -> None:
        for row in share:
            images[row] = view.image(row, view.generator(seed, row))
            advance()

    shares = [range(first, rows, processes) for first in range(processes)]
    helpers = []
    if processes > 1:
        context = multiprocessing.get_context("fork")
        helpers = [context.Process(target=draw, args=(s,), daemon=True) for s in shares[1:]]
    try:
        for helper in helpers:
            helper.start()
        with progress_bar(f"Drawing {view.name}", len(shares[0])) as advance:
            draw(shares[0], advance)
        for helper in helpers:
            helper.join()
    finally:
        for helper in helpers:
            if helper.is_alive():
                helper.terminate()
    failed = [helper.exitcode for helper in helpers if helper.exitcode]
    if failed:
        raise RuntimeError(f"A process that drew {view.name} ended with exit code {failed[0]}.")
    images.flush()
