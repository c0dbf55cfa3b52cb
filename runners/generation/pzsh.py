"""What PZSH needs: generated images of classes, above all of unseen classes that have no image.

Counts are given per class (``--count unseen=100 --count zebra=40``); without any, unseen classes
get 100 images each, the count of the released lists for AwA2. ``--count seen=each`` generates one
for every training row of a class, which PZSH aligns to it. Prompts name the class and, if asked,
its attributes; ``<caption>`` takes captions of its training rows in turn. An image may start from
a training image of its class (``--condition``). ``--features`` encodes all of them afterwards. The
folder, which a run reads as ``data.generated=DIR``::

    <class>/<number>.png       the class name made safe for a file system; numbers from 0
    pictures.jsonl             class, number, prompt, seed, model and source row of every image
    contact_sheets/<class>.png images with their prompts
    manifest.json              what produced them; folders of classes, dataset, counts, versions
    features.h5 train_list.txt of ``--features``, see :mod:`runners.generation.image_features`

Of an unseen class only the name is used and, where the prompt or the creatures' drawing code needs
them, the attributes.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from dataset.base import BadImageError, HashDataset
from runners.generation.base import Generation, ImageGenerator
from runners.generation.contact_sheet import SHOWN, contact_sheet
from runners.generation.creatures import NAME as CREATURES
from runners.generation.image_features import Encoder, write_features
from runners.generation.image_model import ImageKey, ImageRequest, image_seed
from runners.generation.options import Options
from runners.generation.prompts import fill, uses
from utils.errors import UserError, nearest
from utils.files import digest

UNSEEN_COUNT = 100
EACH = "each"  # an image for every training row
_RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(10))}
_OTHER_FILES = {  # other files beside the folders of classes
    "contact_sheets", "manifest.json", "pictures.jsonl", "features.h5", "train_list.txt"
}  # fmt: skip


class PZSHGeneration(Generation):
    """One ``generate`` command for PZSH."""

    method = "pzsh"
    prompt = "A photo of a <label>"
    placeholders = ("label", "attributes", "caption")
    image_part = "pictures"
    line_keys = {"pictures": "file"}
    encoder: Encoder | None = None

    def check_options(self) -> None:
        """Refuse VTPH's options, unknown classes, and prompts or sources that the dataset lacks."""
        options, dataset = self.options, self.dataset
        if options.model is None:
            raise UserError(
                "generate --method pzsh needs --model PATH (it paints pictures of classes), or "
                f"--model {CREATURES} for creatures_zeroshot."
            )
        if options.captioner is not None:
            raise UserError("--captioner belongs to --method vtph, not to pzsh.")
        for word, values in (("attributes", dataset.attributes), ("caption", dataset.texts)):
            if uses(self.template, word) and values is None:
                raise UserError(
                    f"--prompt has <{word}>, and dataset '{dataset.name}' has none; leave it out."
                )
        if options.model == CREATURES and options.condition != "none":
            raise UserError(f"--model {CREATURES} starts from nothing; leave out --condition.")
        names = dataset.class_names
        self.counts = {names[c]: count for c, count in class_counts(options, dataset).items()}
        self.label_width = max(map(len, self.counts))
        self.folders = dict(zip(names, safe_names(names), strict=True))
        self.class_numbers = {name: c for c, name in enumerate(names)}
        self.rows = self._training_rows()
        uses_attributes = uses(self.template, "attributes")
        self.attribute_words = _attribute_words(dataset) if uses_attributes else None
        self.image_keys = [
            ("class", name, number)
            for name, count in self.counts.items()
            for number in range(count)
        ]

    def _training_rows(self) -> dict[str, np.ndarray]:
        """Return the training rows of each generated class, if images are generated from them."""
        if self.options.condition != "none":
            need = "a training picture to start from; give --condition none or"
        elif uses(self.template, "caption"):
            need = "a training row with a caption; leave <caption> out or give"
        else:
            return {}
        train, labels = self.dataset.split.train, self.dataset.labels
        rows = {name: train[labels[train, self.class_numbers[name]] > 0] for name in self.counts}
        for name in rows:
            if len(rows[name]) == 0:
                raise UserError(f"Class '{name}' does not have {need} --count '{name}=0'.")
        return rows

    def _training_row(self, key: ImageKey) -> int | None:
        """Return the training row that an image is generated from, or None."""
        rows = self.rows.get(str(key[1]))
        return None if rows is None else int(rows[key[2] % len(rows)])

    def image_file(self, key: ImageKey) -> str:
        """Return ``<class>/<number>.png``."""
        return f"{self.folders[str(key[1])]}/{key[2]:05d}.png"

    def image_request(self, key: ImageKey) -> ImageRequest:
        """Return the request for one image of a class."""
        dataset, name = self.dataset, str(key[1])
        c = self.class_numbers[name]
        words, source, row = {"label": label_words(name)}, None, self._training_row(key)
        if self.attribute_words is not None:
            words["attributes"] = self.attribute_words[c]
        if row is not None:
            if uses(self.template, "caption"):
                assert dataset.texts is not None
                words["caption"] = (dataset.texts[row] or ("",))[0]
            if self.options.condition != "none":
                source = functools.partial(_decode_source, dataset, row)
        attributes = None if dataset.attributes is None else dataset.attributes[c]
        return ImageRequest(key, fill(self.template, words), source, attributes)

    def summary_lines(self, missing: dict[str, list[Any]]) -> list[str]:
        """Return a line for each class."""
        counts = Counter(name for _, name, _ in missing["pictures"])
        return [
            f"{name:{self.label_width}} {counts[name]:>6,} to make of {count:,}: "
            f"{self.image_request(('class', name, 0)).prompt}"
            for name, count in self.counts.items()
        ]

    def run(self) -> None:
        """Generate what is missing; the encoder is loaded first, so a wrong one fails early."""
        if self.options.features:
            self.encoder = Encoder(self.config)
        super().run()

    def generate_images(self, generator: ImageGenerator, **details: Any) -> None:
        """Generate the missing images, after listing those that a killed process had saved."""
        listed = self.lines["pictures"].entries
        unlisted = [
            self.image_request(key)
            for key in self.image_keys
            if self.image_file(key) not in listed and self.image_path(key).is_file()
        ]
        if unlisted:
            self.images_saved(unlisted)
        folders = self.folder.manifest["parts"].get("pictures", {}).get("folders", {})
        folders = folders | {name: self.folders[name] for name in self.counts}
        super().generate_images(generator, folders=folders, **details)

    def images_saved(self, requests: Sequence[ImageRequest]) -> None:
        """Add the lines of images that have none."""
        assert self.image_generator is not None
        identity, entries = self.image_generator.identity, []
        for request in requests:
            entry: dict[str, Any] = {
                "file": self.image_file(request.key), "class": request.key[1],
                "number": request.key[2], "prompt": request.prompt,
                "seed": image_seed(self.options.seed, request.key),
                "model": identity.get("fingerprint", identity["model"]),
            }  # fmt: skip
            row = self._training_row(request.key)
            if row is not None:
                entry["row"] = row
            if entry["file"] not in self.lines["pictures"].entries:
                entries.append(entry)
        self.lines["pictures"].append(entries)

    def finish(self) -> None:
        """Write the contact sheets and, with ``--features``, the features."""
        listed = self.lines["pictures"].entries
        for name, count in self.counts.items():
            files = [self.image_file(("class", name, n)) for n in range(min(count, SHOWN))]
            entries = [
                (self.options.out / file, f"{n:05d}: {listed[file]['prompt']}")
                for n, file in enumerate(files)
            ]
            sheet = self.options.out / "contact_sheets" / f"{self.folders[name]}.png"
            contact_sheet(entries, sheet)
        if self.encoder is not None:
            self.image_generator = None  # its memory is free for the encoder
            count, lines = write_features(
                self.options.out, self.dataset, self.encoder, self.options.torch_device()
            )
            self.folder.record("features", self.encoder.identity, count, count, lines=lines)


def class_counts(options: Options, dataset: HashDataset) -> dict[int, int]:
    """Return class number → number of images, for classes with any.

    Raises:
        UserError: a malformed count, an unknown class, or no image at all.
    """
    names, seen = dataset.class_names, set(dataset.seen_classes or range(len(dataset.class_names)))
    groups = {
        "all": range(len(names)), "seen": sorted(seen),
        "unseen": [c for c in range(len(names)) if c not in seen],
    }  # fmt: skip
    words = options.count or ((f"unseen={UNSEEN_COUNT}",) if groups["unseen"] else ())
    counts = dict.fromkeys(range(len(names)), 0)
    rows = dataset.labels[dataset.split.train].sum(0).astype(int).tolist()
    for word in words:
        group, equals, number = word.rpartition("=")
        group = group if equals else "all"
        if not (number.isascii() and number.isdigit()) and number != EACH:
            raise UserError(
                f"--count '{word}' is not understood; a number is needed, or seen=N, seen=each, "
                "unseen=N, <class>=N."
            )
        if group not in groups and group not in names:
            raise UserError(
                f"--count '{word}': dataset '{dataset.name}' has no class '{group}'."
                f"{nearest(group, names)} all, seen and unseen are groups of its {len(names)}."
            )
        for c in [names.index(group)] if group in names else groups[group]:
            counts[c] = rows[c] if number == EACH else int(number)
    limited = {c: min(n, options.limit or n) for c, n in counts.items() if n}
    if not limited:
        raise UserError(
            f"Nothing to paint: dataset '{dataset.name}' has {len(groups['unseen'])} unseen "
            "classes; say how many pictures per class by --count N or --count CLASS=N."
        )
    return limited


def label_words(name: str) -> str:
    """Return a class name as words for a prompt.

    >>> label_words("001.Black_footed_Albatross"), label_words("grizzly+bear")
    ('Black footed Albatross', 'grizzly bear')
    """
    words = re.sub(r"^\d+\.", "", name)
    return " ".join(re.sub(r"[_+]+", " ", words).split()) or name


def safe_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return folder names that any file system takes and keeps apart, also without case.

    >>> safe_names(["grizzly+bear", "../etc", "CON", "Zebra", "zebra", "élan"])
    ('grizzly_bear', 'etc', 'CON_', 'Zebra', 'zebra-4', 'elan')
    """
    safe: list[str] = []
    taken = set(_OTHER_FILES)
    for i, name in enumerate(names):
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        word = re.sub(r"[^A-Za-z0-9.-]+", "_", plain).strip("._-") or f"class_{i}"
        if len(word) > 80:
            word = f"{word[:60]}-{digest(name)}"
        if word.split(".")[0].lower() in _RESERVED:
            word += "_"
        while word.lower() in taken:
            word += f"-{i}"
        taken.add(word.lower())
        safe.append(word)
    return tuple(safe)


def _attribute_words(dataset: HashDataset) -> list[str]:
    """Return for each class the names of the attributes that it has.

    Of 0/1 attributes those that are 1; of degrees those above their mean over all classes.
    """
    assert dataset.attributes is not None
    values = dataset.attributes  # [C,A]
    present = values > 0.5 if np.isin(values, (0, 1)).all() else values > values.mean(0)
    names = np.array([label_words(name) for name in dataset.attribute_names])
    return [" ".join(names[row]) for row in present]


def _decode_source(dataset: HashDataset, row: int) -> np.ndarray:
    try:
        return dataset.images.decode(row)
    except BadImageError as error:
        raise UserError(f"A picture to start from cannot be read: {error}") from error
