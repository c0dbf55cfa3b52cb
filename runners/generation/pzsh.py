"""What PZSH needs: pseudo-pictures of classes, above all of unseen ones that have no picture.

Counts are given per class (``--count unseen=100 --count zebra=40``); without any, unseen classes
get 100 pictures each, the count of the released lists for AwA2. ``--count seen=each`` paints one
for every training row of a class, for PZSH to align to. Prompts name the class and perhaps its
attributes; ``<caption>`` takes captions of its training rows in turn. A picture may start from a
training picture of its class (``--condition``). ``--features`` encodes all of them afterwards. The
folder, which a run reads as ``data.generated=DIR``::

    <class>/<number>.png       the class's name made safe for a file system; numbers from 0
    pictures.jsonl             class, number, prompt, seed, model and source row of every picture
    contact_sheets/<class>.png pictures with their prompts
    manifest.json              what made them; folders of classes, dataset, counts, versions
    features.h5 train_list.txt of ``--features``, see :mod:`runners.generation.image_features`

Nothing of an unseen class is used but its name and, where the prompt asks for them or the stand-in
painter draws from them, its attributes.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from common.config.run_config import RunConfig
from dataset.base import BadImageError, HashDataset
from runners.generation.contact_sheet import contact_sheet
from runners.generation.creatures import NAME as CREATURES
from runners.generation.creatures import CreaturesPainter
from runners.generation.image_features import Encoder, write_features
from runners.generation.image_model import (
    KIND,
    MARKER,
    DiffusionPainter,
    Painter,
    Painting,
    own_seed,
)
from runners.generation.model_files import check as check_model
from runners.generation.options import Options
from runners.generation.output_folder import (
    BYTES_PER_LINE,
    BYTES_PER_PIXEL,
    Lines,
    OutputFolder,
    check_space,
    readable,
    save_picture,
    space,
)
from runners.generation.prompts import check_template, fill, uses
from runners.generation.vtph import describe
from utils.errors import UserError, nearest
from utils.files import digest
from utils.progress import progress_bar

log = logging.getLogger("hashing")

PROMPT = "A photo of a <label>"
PLACES = ("label", "attributes", "caption")
UNSEEN_COUNT = 100
EACH = "each"  # a picture for every training row
SHOWN = 24  # pictures on a contact sheet
_RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(10))}
_OWN = {  # what else lies beside the classes
    "contact_sheets", "manifest.json", "pictures.jsonl", "features.h5", "train_list.txt"
}  # fmt: skip


class Generation:
    """One command's work for PZSH."""

    def __init__(
        self, options: Options, dataset: HashDataset, config: RunConfig | None = None
    ) -> None:
        """Check everything that can be checked before the first picture; write nothing.

        Args:
            options: of the command.
            dataset: its class names and attributes, and training rows where asked for.
            config: of a run with the same settings; its backbone makes the features.

        Raises:
            UserError: no model or a wrong one, a template without ``<label>``, an unknown class,
                nothing to paint, a class without what is asked for, a folder with something else.
        """
        self.options, self.dataset, self.config = options, dataset, config
        self.template = PROMPT if options.prompt is None else options.prompt
        check_template(self.template, "label", PLACES)
        if options.model is None:
            raise UserError(
                "generate --method pzsh needs --model PATH (it paints pictures of classes), or "
                f"--model {CREATURES} for creatures_zeroshot."
            )
        if options.captioner is not None:
            raise UserError("--captioner belongs to --method vtph, not to pzsh.")
        if uses(self.template, "attributes") and dataset.attributes is None:
            raise UserError(
                f"--prompt has <attributes>, and dataset '{dataset.name}' has none; leave it out."
            )
        if uses(self.template, "caption") and dataset.texts is None:
            raise UserError(
                f"--prompt has <caption>, and dataset '{dataset.name}' has none; leave it out."
            )
        self.counts = class_counts(options, dataset)
        self.names = safe_names(dataset.class_names)
        self.folder = OutputFolder(options.out, "pzsh", describe(dataset))
        self.lines = Lines(options.out / "pictures.jsonl", "file")
        self.painter = self._painter()
        self.rows = self._training_rows()
        self.described = _attribute_words(dataset) if uses(self.template, "attributes") else None
        if self.painter:
            self.folder.check("pictures", self._made_by(self.painter))

    def _painter(self) -> Painter | None:
        options = self.options
        assert options.model is not None
        if options.model == CREATURES:
            if options.condition != "none":
                raise UserError(f"--model {CREATURES} starts from nothing; leave out --condition.")
            return CreaturesPainter(options.seed, self.dataset)
        if check_model(options.model, "--model", MARKER, KIND) is None and options.dry_run:
            return None  # a dry run fetches nothing from the hub
        return DiffusionPainter(options)

    def _training_rows(self) -> dict[int, np.ndarray]:
        """Return the training rows of each class that is painted, if they are asked for."""
        wanted = {
            "a training picture to start from; give --condition none or":
                self.options.condition != "none",
            "a training row with a caption; leave <caption> out or give":
                uses(self.template, "caption"),
        }  # fmt: skip
        train, rows = self.dataset.split.train, {}
        for what in [what for what, asked in wanted.items() if asked]:
            for c in self.counts:
                rows[c] = train[self.dataset.labels[train, c] > 0]
                if len(rows[c]) == 0:
                    name = self.dataset.class_names[c]
                    raise UserError(f"Class '{name}' does not have {what} --count '{name}=0'.")
        return rows

    def _made_by(self, painter: Painter) -> dict[str, Any]:
        return {**painter.identity, "prompt": self.template}

    def file(self, c: int, number: int) -> str:
        """Return where a picture lies, relative to the folder."""
        return f"{self.names[c]}/{number:05d}.png"

    def painting(self, c: int, number: int) -> Painting:
        """Return what to paint as picture ``number`` of class ``c``."""
        dataset, name = self.dataset, self.dataset.class_names[c]
        words, source = {"label": label_words(name)}, None
        if self.described is not None:
            words["attributes"] = self.described[c]
        if c in self.rows:
            row = int(self.rows[c][number % len(self.rows[c])])
            if uses(self.template, "caption"):
                assert dataset.texts is not None
                words["caption"] = (dataset.texts[row] or ("",))[0]
            if self.options.condition != "none":
                source = _source(dataset, row)
        return Painting(
            ("class", name, number),
            fill(self.template, words),
            source,
            None if dataset.attributes is None else dataset.attributes[c],
        )

    def missing(self) -> list[tuple[int, int]]:
        """Return (class, number) of the pictures that are asked for and not there."""
        return [
            (c, number)
            for c, count in self.counts.items()
            for number in range(count)
            if not (self.options.out / self.file(c, number)).is_file()
        ]

    def needed(self, pictures: int) -> int:
        """Return how many bytes so many pictures may take, at most."""
        side = self.painter.side if self.painter else self.options.size or 1024
        return pictures * (side * side * BYTES_PER_PIXEL + BYTES_PER_LINE)

    def summary(self) -> list[str]:
        """Return what there is to do, line by line."""
        missing = self.missing()
        wide = max(len(self.dataset.class_names[c]) for c in self.counts)
        lines = [
            f"{self.dataset.class_names[c]:{wide}} {sum(m[0] == c for m in missing):>6,} to make "
            f"of {count:,}: {self.painting(c, 0).prompt}"
            for c, count in self.counts.items()
        ]
        needed, free = readable(self.needed(len(missing))), readable(space(self.options.out))
        return [*lines, f"{'disk':{wide}} {needed} at most; {free} free"]

    def run(self) -> None:
        """Make what is missing.

        Raises:
            UserError: no room, or a model that cannot be loaded.
        """
        assert self.painter is not None
        check_space(self.options.out, self.needed(len(self.missing())))
        encoder = None
        if self.options.features:  # loaded now: hours of painting shall not end in a misspelt path
            assert self.config is not None
            encoder = Encoder.of(self.config)
        with self.folder.writing():
            self.lines = Lines(self.lines.path, "file")  # another process may have added to it
            self.lines.repair()
            missing = self.missing()
            wanted = sum(self.counts.values())
            self._record(wanted - len(missing), wanted)
            self._lines_of_unlisted()
            log.info("painting %d pictures of %d", len(missing), wanted)
            paintings = [self.painting(c, number) for c, number in missing]
            files = {p.key: self.file(*m) for p, m in zip(paintings, missing, strict=True)}
            done = wanted - len(missing)
            try:
                with progress_bar("painting", len(missing)) as advance:
                    for batch in self.painter.paint(paintings):
                        for painting, image in batch:
                            save_picture(image, self.options.out / files[painting.key])
                        self._list([p for p, _ in batch])
                        done += len(batch)
                        advance(len(batch))
            finally:
                self._record(done, wanted)
            self._show()
            if encoder is not None:
                self.painter = None  # its memory is the encoder's now
                made, lines = write_features(
                    self.options.out, self.dataset, encoder, self.options.torch_device()
                )
                self.folder.record("features", encoder.identity, made, made, lines=lines)

    def _record(self, done: int, wanted: int) -> None:
        assert self.painter is not None
        names = {self.dataset.class_names[c]: self.names[c] for c in self.counts}
        known = self.folder.manifest["parts"].get("pictures", {}).get("folders", {})
        self.folder.record(
            "pictures", self._made_by(self.painter), done, wanted, folders={**known, **names}
        )

    def _lines_of_unlisted(self) -> None:
        """Add the lines of pictures that were saved just before a kill."""
        there = [
            (c, number)
            for c, count in self.counts.items()
            for number in range(count)
            if self.file(c, number) not in self.lines.entries
            and (self.options.out / self.file(c, number)).is_file()
        ]
        if there:
            self._list([self.painting(c, number) for c, number in there])

    def _list(self, paintings: Sequence[Painting]) -> None:
        assert self.painter is not None
        identity, entries = self.painter.identity, []
        for painting in paintings:
            _, name, number = painting.key
            c = self.dataset.class_names.index(str(name))
            entry: dict[str, Any] = {
                "file": self.file(c, int(number)), "class": name, "number": number,
                "prompt": painting.prompt, "seed": own_seed(self.options.seed, painting.key),
                "model": identity.get("fingerprint", identity["model"]),
            }  # fmt: skip
            if c in self.rows:
                entry["row"] = int(self.rows[c][int(number) % len(self.rows[c])])
            if entry["file"] not in self.lines.entries:
                entries.append(entry)
        self.lines.append(entries)

    def _show(self) -> None:
        for c, count in self.counts.items():
            files = [self.file(c, number) for number in range(min(count, SHOWN))]
            there = [(self.options.out / file, self.lines.entries[file]["prompt"])
                     for file in files if (self.options.out / file).is_file()]  # fmt: skip
            if there:
                sheet = self.options.out / "contact_sheets" / f"{self.names[c]}.png"
                contact_sheet([(f, f"{f.stem}: {prompt}") for f, prompt in there], sheet)


def class_counts(options: Options, dataset: HashDataset) -> dict[int, int]:
    """Return class number → pictures to paint, for classes with any.

    Raises:
        UserError: a count that is not understood, an unknown class, or nothing to paint.
    """
    names, seen = dataset.class_names, set(dataset.seen_classes or range(len(dataset.class_names)))
    groups = {
        "all": range(len(names)), "seen": sorted(seen),
        "unseen": [c for c in range(len(names)) if c not in seen],
    }  # fmt: skip
    asked = options.count or ((f"unseen={UNSEEN_COUNT}",) if groups["unseen"] else ())
    counts = dict.fromkeys(range(len(names)), 0)
    rows = dataset.labels[dataset.split.train].sum(0).astype(int).tolist()
    for word in asked:
        who, equals, number = word.rpartition("=")
        who = who if equals else "all"
        if not (number.isascii() and number.isdigit()) and number != EACH:
            raise UserError(
                f"--count '{word}' is not understood; a number is needed, or seen=N, seen=each, "
                "unseen=N, <class>=N."
            )
        if who not in groups and who not in names:
            raise UserError(
                f"--count '{word}': dataset '{dataset.name}' has no class '{who}'."
                f"{nearest(who, names)} all, seen and unseen are groups of its {len(names)}."
            )
        for c in [names.index(who)] if who in names else groups[who]:
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
    taken = set(_OWN)
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


def _source(dataset: HashDataset, row: int) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        try:
            return dataset.images.decode(row)
        except BadImageError as error:
            raise UserError(f"A picture to start from cannot be read: {error}") from error

    return load
