"""Features of one's own encoder, computed once: heads, ITQ, LSH and metrics without pictures.

One file or a folder of files (:mod:`dataset.feature_files`) with these arrays, of N rows:

================================== ===============================================================
``image``                          [N,D], float16, 32 or 64 or whole numbers
``text``                           the same [N,D']; [N,C,D'] for C captions of each row; or [T,D']
                                   with ``text_offsets`` [N+1], the first caption of each row
``labels``                         [N,C] of 0 and 1, or [N] numbers of classes from 0
``image_tokens``, ``text_tokens``  [N,L,D], for methods that read tokens (MITH); with captions as
                                   ``text``
``image_mask``, ``text_mask``      [N,L], 1 where a token is hidden (padding)
``ids`` or ``paths``               N different texts or numbers: how results call a row
``split``                          N words: ``train``, ``val``, ``query``, ``database``, or several,
                                   as ``train+database``; without any ``database``, it is every row
                                   that is no query
``train``, ``query``, ``database`` row numbers instead, and perhaps ``val``
``class_names``                    C texts
``attributes``, ``seen_classes``   [C,A]; numbers of the classes that may be trained on
================================== ===============================================================

``image`` or ``text`` and ``labels`` are needed. No encoder is loaded: that of
``configs/dataset/features.yaml``, ``features``, is none. ``backbone=NAME`` says which encoder has
computed them, so that runs can be compared with a paper, and pictures searched with.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from pathlib import Path

import numpy as np

from common.registry import DATASETS
from dataset.base import BadImageError, HashDataset, ImageSource
from dataset.feature_files import Arrays, fingerprint, read_arrays
from dataset.images import FileImages
from dataset.label_reader import read_labels
from dataset.preparation.followed import check_stated, completed, stated_protocol
from dataset.row_features import FEATURE_NAMES, RowFeatures, row_features
from dataset.splits import PARTS, SplitConfig, SplitManifest, make_split
from dataset.tables import read_names
from utils.errors import UserError

log = logging.getLogger("hashing")
ID_NAMES = ("ids", "paths")
NAMES = (
    *FEATURE_NAMES, "labels", *ID_NAMES, "split", *PARTS, "class_names", "attributes",
    "seen_classes",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FeaturesConfig:
    """Keys of a dataset of features.

    Attributes:
        root: a file that ends in .npz, .h5, .npy or .safetensors, or a folder of them.
        image_root: where ``paths`` start, for reports and searches that show pictures.
        class_names_file: one class name a line; a relative path starts at the folder of ``root``.
        protocol: the published protocol that the rows follow, as ``flickr25k/mith``; they are held
            to its published numbers, and without a split of theirs are permuted as it does.
        split: ``rule=auto``: the split in the file, or else ``per_class``; the other rules as for
            every dataset.
    """

    root: str = ""
    image_root: str | None = None
    class_names_file: str | None = None
    protocol: str | None = None
    split: SplitConfig = SplitConfig(rule="auto", seed=0)

    def __post_init__(self) -> None:
        if self.protocol is not None and self.split.rule == "permutation":
            object.__setattr__(self, "split", _completed(self.split, self.protocol))


class UnseenImages:
    """Rows without pictures: names only."""

    def __init__(self, names: tuple[str, ...] | None, rows: int, fingerprint: str) -> None:
        """Take the names of the rows; None: their numbers."""
        self.names, self.rows, self.fingerprint = names, rows, fingerprint

    def __len__(self) -> int:
        return self.rows

    def decode(self, row: int) -> np.ndarray:
        """Refuse: features have no pictures."""
        raise BadImageError(f"'{self.name(row)}': a dataset of features has no pictures.")

    def name(self, row: int) -> str:
        """Return the id of ``row``, or ``row <number>``."""
        return f"row {row}" if self.names is None else self.names[row]


@DATASETS.register("features", config=FeaturesConfig)
def build(config: FeaturesConfig, name: str) -> HashDataset:
    """Features of one's own encoder in .npz, .h5, .npy or .safetensors, with labels and a split.

    Raises:
        UserError: no file, one that cannot be read, no features or labels, shapes that do not fit,
            NaN or infinity, ids that repeat, or a split that does not fit.
    """
    if not config.root:
        raise UserError("dataset.root is not set; give a file of features, or a folder of them.")
    root = Path(config.root).expanduser()
    arrays = read_arrays(root, NAMES)
    features = row_features(arrays, fingerprint(root), str(root))
    folder = root if root.is_dir() else root.parent
    given = _given_names(config, arrays, folder, root)
    labels = _labels(arrays, len(features), len(given or ()), root)
    if given is not None and len(given) != labels.shape[1]:
        raise UserError(
            f"'{root}': {len(given)} class names, but the labels have {labels.shape[1]} classes."
        )
    unlabelled = np.flatnonzero(labels.sum(1) == 0)
    if len(unlabelled):
        log.warning(
            "'%s': %s of %s rows carry no label, row %d first; they are relevant to no query",
            root, f"{len(unlabelled):,}", f"{len(labels):,}", unlabelled[0],
        )  # fmt: skip
    seen = tuple(int(c) for c in np.ravel(arrays.get("seen_classes", ())))
    check_stated(config.protocol, labels, {})
    split = _split(config, arrays, labels, seen, folder)
    check_stated(config.protocol, labels, split.counts)
    attributes = arrays.get("attributes")
    if attributes is not None and attributes.shape[:1] != labels.shape[1:]:
        raise UserError(
            f"'{root}': attributes of shape {attributes.shape}, but {labels.shape[1]} classes."
        )
    return HashDataset(
        name=name,
        images=_images(config, arrays, features, root),
        labels=labels,
        class_names=given or tuple(f"class {c}" for c in range(labels.shape[1])),
        multi_label=bool((labels.sum(1) > 1).any()),
        split=split,
        attributes=None if attributes is None else np.asarray(attributes, np.float32),
        seen_classes=seen,
        features=features,
    )


def _given_names(
    config: FeaturesConfig, arrays: Arrays, folder: Path, root: Path
) -> tuple[str, ...] | None:
    if config.class_names_file is not None:
        return read_names(folder / Path(config.class_names_file).expanduser())
    stored = arrays.get("class_names")
    return None if stored is None else _words(stored, "class_names", root)


def _words(array: np.ndarray, name: str, root: Path) -> tuple[str, ...]:
    """Return the texts or whole numbers of an array [n] as texts."""
    if array.ndim != 1 or array.dtype.kind not in "USiu":
        raise UserError(
            f"'{root}': {name} is {array.dtype} of shape {array.shape}; a list of texts is needed."
        )
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    return tuple(str(word).strip() for word in array.tolist())


def _images(
    config: FeaturesConfig, arrays: Arrays, features: RowFeatures, root: Path
) -> ImageSource:
    """Return the names of the rows, or their pictures where these are said to be somewhere."""
    names = row_ids(arrays, len(features), root)
    if config.image_root is None:
        return UnseenImages(names, len(features), features.fingerprint)
    if names is None:
        raise UserError(f"dataset.image_root is given, but '{root}' has no 'paths'.")
    return FileImages(names, Path(config.image_root).expanduser(), colour="as_seen")


def row_ids(arrays: Arrays, rows: int, root: Path) -> tuple[str, ...] | None:
    """Return the ids of ``rows`` rows, or None where there are none.

    Raises:
        UserError: another number of them, or ids that repeat.
    """
    name = next((name for name in ID_NAMES if name in arrays), None)
    if name is None:
        return None
    names = _words(arrays[name], name, root)
    if len(names) != rows:
        raise UserError(
            f"'{root}': {rows:,} rows of features and {len(names):,} {name}; they must agree."
        )
    if len(set(names)) < len(names):
        values, counts = np.unique(names, return_counts=True)
        raise UserError(
            f"'{root}': {int((counts > 1).sum()):,} {name} repeat, '{values[counts > 1][0]}' "
            "first; every row needs one of its own."
        )
    return names


def _labels(arrays: Arrays, rows: int, n_names: int, root: Path) -> np.ndarray:
    """Return the labels as float32 [N,C]; ``n_names``: number of class names, 0: unknown."""
    values = arrays.get("labels")
    if values is None:
        raise UserError(
            f"'{root}' has no 'labels'; [N,C] of 0 and 1 or [N] numbers of classes are needed (in "
            "a folder: labels.npy)."
        )
    values = np.asarray(values)
    if len(values) != rows:
        raise UserError(
            f"'{root}': {rows:,} rows of features and {len(values):,} of labels; they must agree."
        )
    return read_labels(values, f"'{root}'", n_names)


def _split(
    config: FeaturesConfig, arrays: Arrays, labels: np.ndarray, seen: tuple[int, ...], folder: Path
) -> SplitManifest:
    """Return the split in the file, or one that is drawn."""
    choice = config.split
    if choice.rule == "auto":
        stored = _stored_split(arrays, len(labels), config.root)
        if stored is not None:
            stored.check(len(labels))
            return stored
        permuted = config.protocol is not None and stated_protocol(config.protocol)[1].query
        rule = "permutation" if permuted else "per_class"
        choice = dataclasses.replace(choice, rule=rule)
        if permuted:
            choice = _completed(choice, str(config.protocol))
        log.info("'%s' states no split: rows are drawn by dataset.split.rule=%s", config.root, rule)
    return make_split(choice, labels, seen, folder)


def _completed(split: SplitConfig, protocol: str) -> SplitConfig:
    """Return ``split`` with the numbers and the seed of a protocol; seed 0 counts as left out."""
    seed = split.seed or SplitConfig.seed
    return completed(dataclasses.replace(split, seed=seed), protocol)


def _stored_split(arrays: Arrays, rows: int, root: str) -> SplitManifest | None:
    """Return the split that the arrays state by words or by row numbers, or None."""
    numbers = {part: arrays[part] for part in PARTS if part in arrays}
    words = arrays.get("split")
    if words is not None and numbers:
        raise UserError(
            f"'{root}' has 'split' and '{next(iter(numbers))}', two statements of the split; keep "
            "one."
        )
    if words is not None:
        return _split_of_words(_words(words, "split", Path(root)), rows, root)
    if not numbers:
        return None
    missing = [part for part in ("train", "query") if part not in numbers]
    if missing:
        raise UserError(f"'{root}' has row numbers of {', '.join(numbers)}, but no {missing[0]}.")
    for part, values in numbers.items():
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise UserError(
                f"'{root}': {part} is {values.dtype} of shape {values.shape}; a list of row "
                "numbers from 0 is needed."
            )
    parts = {part: np.asarray(values).astype(np.int64) for part, values in numbers.items()}
    parts.setdefault("database", np.setdiff1d(np.arange(rows), parts["query"]))
    return SplitManifest(**parts, rule=f"row numbers in {Path(root).name}")


def _split_of_words(words: tuple[str, ...], rows: int, root: str) -> SplitManifest:
    if len(words) != rows:
        raise UserError(
            f"'{root}': {rows:,} rows of features and {len(words):,} words of split; they must "
            "agree."
        )
    chosen: dict[str, list[int]] = {part: [] for part in PARTS}
    for row, word in enumerate(words):
        for part in re.findall(r"[^\W_]+", word.lower()):
            if part not in chosen:
                raise UserError(
                    f"'{root}': split of row {row} is '{word}'; train, val, query, database or "
                    "several of them, as train+database, are known."
                )
            chosen[part].append(row)
    parts = {part: np.array(found, np.int64) for part, found in chosen.items()}
    if not len(parts["database"]):
        parts["database"] = np.setdiff1d(np.arange(rows), parts["query"])
    return SplitManifest(**parts, rule=f"words in {Path(root).name}")
