"""What the methods' generations share: options, folder, manifest, progress, resume and dry run."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from common.config.run_config import RunConfig
from dataset.base import HashDataset
from runners.generation.creatures import NAME as CREATURES
from runners.generation.creatures import CreaturesImageGenerator
from runners.generation.image_model import (
    KIND,
    MARKER,
    DiffusionImageGenerator,
    ImageKey,
    ImageRequest,
)
from runners.generation.model_files import check as check_model
from runners.generation.options import Options
from runners.generation.output_folder import (
    BYTES_PER_LINE,
    BYTES_PER_PIXEL,
    Lines,
    OutputFolder,
    check_space,
    save_image,
)
from runners.generation.prompts import check_template
from utils.files import digest, free_space, readable
from utils.progress import progress_bar

log = logging.getLogger("hashing")

ImageGenerator = DiffusionImageGenerator | CreaturesImageGenerator


class Generation(ABC):
    """One ``generate`` command for one method.

    Attributes:
        method: name of ``--method``.
        prompt: template when ``--prompt`` is not given.
        placeholders: that a template may have; the first one is required.
        image_part: part of the manifest and of :meth:`missing` with the generated images.
        line_keys: ``.jsonl`` part → field that identifies an entry.
        label_width: of the first column of :meth:`summary`.
        image_keys: the requested images, in order; set by :meth:`check_options`.
    """

    method: ClassVar[str]
    prompt: ClassVar[str]
    placeholders: ClassVar[tuple[str, ...]]
    image_part: ClassVar[str]
    line_keys: ClassVar[dict[str, str]]
    label_width = 15
    image_keys: list[ImageKey]

    def __init__(self, options: Options, dataset: HashDataset, config: RunConfig) -> None:
        """Check everything that can be checked before the first image; write nothing.

        Raises:
            UserError: a template or options that the method does not accept, no model or a wrong
                one, a folder that holds something else.
        """
        self.options, self.dataset, self.config = options, dataset, config
        self.template = self.prompt if options.prompt is None else options.prompt
        check_template(self.template, self.placeholders[0], self.placeholders)
        self.check_options()
        self.folder = OutputFolder(options.out, self.method, describe(dataset))
        self.lines = self._read_lines()
        self.image_generator = self.find_image_generator()
        if self.image_generator:
            self.folder.check(self.image_part, self.image_identity(self.image_generator))

    @abstractmethod
    def check_options(self) -> None:
        """Refuse options that the method does not accept and set ``image_keys``."""

    @abstractmethod
    def image_file(self, key: ImageKey) -> str:
        """Return the path of an image relative to the folder."""

    @abstractmethod
    def image_request(self, key: ImageKey) -> ImageRequest:
        """Return what to generate for ``key``."""

    @abstractmethod
    def summary_lines(self, missing: dict[str, list[Any]]) -> list[str]:
        """Return the lines of :meth:`summary` about ``missing``."""

    @abstractmethod
    def finish(self) -> None:
        """Write everything else, after the images and under the lock of the folder."""

    def images_saved(self, requests: Sequence[ImageRequest]) -> None:  # noqa: B027 - optional
        """React to a batch of saved images."""

    def find_image_generator(self) -> ImageGenerator | None:
        """Return the model of ``--model``; a dry run fetches nothing from the hub."""
        model, fetch = self.options.model, not self.options.dry_run
        if model == CREATURES:
            return CreaturesImageGenerator(self.options.seed, self.dataset)
        if model and (check_model(model, "--model", MARKER, KIND) or fetch):
            return DiffusionImageGenerator(self.options)
        return None

    def image_identity(self, generator: ImageGenerator) -> dict[str, Any]:
        """Return everything that decides the images; JSON values."""
        return {**generator.identity, "prompt": self.template}

    def image_path(self, key: ImageKey) -> Path:
        """Return the file of an image."""
        return self.options.out / self.image_file(key)

    def missing(self) -> dict[str, list[Any]]:
        """Return for each part the requested items that are not in the folder."""
        keys = self.image_keys if self.options.model else []
        return {self.image_part: [key for key in keys if not self.image_path(key).is_file()]}

    def needed(self, missing: dict[str, list[Any]]) -> int:
        """Return an upper bound of the bytes that the missing items take."""
        side = self.image_generator.side if self.image_generator else self.options.size or 1024
        images = len(missing[self.image_part])
        lines = sum(len(missing[part]) for part in self.line_keys)
        return images * side * side * BYTES_PER_PIXEL + lines * BYTES_PER_LINE

    def summary(self) -> list[str]:
        """Return what is to be done, line by line."""
        missing = self.missing()
        needed, free = readable(self.needed(missing)), readable(free_space(self.options.out))
        disk = f"{'disk':{self.label_width}} {needed} at most; {free} free"
        return [*self.summary_lines(missing), disk]

    def run(self) -> None:
        """Generate what is missing.

        Raises:
            UserError: no space, a model that cannot be loaded, an image that cannot be read.
        """
        check_space(self.options.out, self.needed(self.missing()))
        with self.folder.writing():
            self.lines = self._read_lines()  # another process may have added to them
            for lines in self.lines.values():
                lines.repair()
            if self.image_generator:
                self.generate_images(self.image_generator)
            self.finish()

    def generate_images(self, generator: ImageGenerator, **details: Any) -> None:
        """Generate the missing images; the manifest gets their number and ``details``."""
        missing, total = self.missing()[self.image_part], len(self.image_keys)
        done = total - len(missing)
        identity = self.image_identity(generator)
        with self.folder.recording(self.image_part, identity, lambda: done, total, **details):
            log.info("painting %d pictures of %d", len(missing), total)
            with progress_bar("painting", len(missing)) as advance:
                for batch in generator.generate([self.image_request(key) for key in missing]):
                    for request, image in batch:
                        save_image(image, self.image_path(request.key))
                    self.images_saved([request for request, _ in batch])
                    done += len(batch)
                    advance(len(batch))

    def _read_lines(self) -> dict[str, Lines]:
        return {
            part: Lines(self.options.out / f"{part}.jsonl", key)
            for part, key in self.line_keys.items()
        }


def describe(dataset: HashDataset) -> dict[str, Any]:
    """Return what the rows of ``dataset`` are, as JSON values that change when they do.

    ``split_hash`` is that of the dataset's own split, before validation rows are cut from it.
    """
    texts = [text for row in dataset.texts or [] for text in (*row, "")]
    return {
        "name": dataset.name,
        "rows": len(dataset),
        "images": dataset.images.fingerprint,
        "texts": digest(*texts) if dataset.texts is not None else None,
        "split_hash": dataset.split.hash,
    }
