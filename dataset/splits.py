"""Split manifests: which rows are train, val, query and database, by a stated rule, with a hash.

Rules (``dataset.split.rule``):

``permutation``
    DCMHT's and MITH's: a seeded permutation of all rows; the first ``query`` rows are the queries,
    the next ``train`` are for training, everything after the queries is the database (so training
    rows are part of it).
``per_class``
    The convention of image hashing: per class, ``query`` random rows are queries and ``train``
    others are for training; the database is every row that is no query. A row with several labels
    is drawn for one of its classes only.
``seen_unseen``
    Zero-shot: ``train`` rows of every seen class, ``query`` rows of every unseen class, database =
    every row that is neither (``train_in_database: true`` adds the training rows). A row with any
    unseen label is never a training row.
``file``
    Row numbers from an ``.npz`` with ``train``, ``query``, ``database`` (and perhaps ``val``), in
    the order of the file; ``query``, ``train`` and ``seed`` are not used.

``train_in_database: false`` takes the training rows out of the database under the first two rules.
``val`` rows are cut from the training rows when a run selects its epoch on them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from utils.errors import UserError, unknown_name
from utils.files import atomic_path, check_plain_file
from utils.numpy_file import open_npz

PARTS = ("train", "val", "query", "database")
# Pairs of parts that may share no row; train and database, val and database may.
DISJOINT = (("query", "train"), ("query", "database"), ("val", "query"), ("val", "train"))


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """Keys of ``dataset.split``; what a rule does not use stays None.

    Attributes:
        rule: ``permutation``, ``per_class``, ``seen_unseen`` or ``file``.
        seed: of the random draw, 0..2³²-1.
        query: query rows in all (permutation) or per class (per_class, seen_unseen), a number or
            a share of the rows below 1; None = a tenth. Shares are rounded down, but to at least
            one where there are two rows.
        train: training rows, given in the same way, a share of those that are no queries; None =
            all that are left.
        train_in_database: whether training rows are also in the database.
        file: for the rule ``file``, an ``.npz``; a relative path starts at the dataset's root.
    """

    rule: str = "permutation"
    seed: int = 1814
    query: int | float | None = None
    train: int | float | None = None
    train_in_database: bool = True
    file: str | None = None


@dataclasses.dataclass(frozen=True)
class SplitManifest:
    """Row numbers (int64, 0-based) of each part, and the rule that made them."""

    train: np.ndarray
    query: np.ndarray
    database: np.ndarray
    val: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    rule: str = ""

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of all row numbers, part by part."""
        digest = hashlib.sha256()
        for part in PARTS:
            rows = np.ascontiguousarray(getattr(self, part), dtype="<i8")
            digest.update(f"{part}:{len(rows)};".encode())
            digest.update(rows.tobytes())
        return digest.hexdigest()[:16]

    @property
    def counts(self) -> dict[str, int]:
        """Part → number of rows, in the order train, val, query, database."""
        return {part: len(getattr(self, part)) for part in PARTS}

    def describe(self) -> str:
        """Return the counts in words.

        >>> SplitManifest(np.arange(2000), np.arange(2000, 2500), np.arange(2000)).describe()
        'train 2,000, val 0, query 500, database 2,000'
        """
        return ", ".join(f"{part} {count:,}" for part, count in self.counts.items())

    def with_val(self, size: int, seed: int) -> SplitManifest:
        """Return a manifest with ``size`` seeded random rows moved from ``train`` to ``val``.

        Raises:
            UserError: no training row would remain.
        """
        if size <= 0:
            return self
        if size >= len(self.train):
            raise UserError(
                f"eval.val_size={size} leaves no training row of the {len(self.train)} there are; "
                "give fewer, or eval.select=last to train on all of them."
            )
        order = np.random.default_rng([seed, 0x7A1]).permutation(len(self.train))
        held_out = np.sort(order[:size])
        remaining = np.setdiff1d(np.arange(len(self.train)), held_out)
        return dataclasses.replace(
            self, train=self.train[remaining], val=self.train[held_out],
            rule=f"{self.rule}; val: {size} of the training rows, seed {seed}",
        )  # fmt: skip

    def without(self, rows: np.ndarray) -> SplitManifest:
        """Return the manifest with ``rows`` (say, of broken images) removed from every part."""
        if len(rows) == 0:
            return self
        parts = {p: getattr(self, p)[~np.isin(getattr(self, p), rows)] for p in PARTS}
        return dataclasses.replace(self, **parts, rule=f"{self.rule}; {len(rows)} rows left out")

    def save(self, path: str | Path) -> None:
        """Write the manifest atomically as ``.npz`` (the four parts, the rule, the hash)."""
        with atomic_path(Path(path)) as temporary, open(temporary, "wb") as stream:
            parts = {part: np.asarray(getattr(self, part), np.int64) for part in PARTS}
            texts = {"rule": np.array(self.rule), "hash": np.array(self.hash)}
            np.savez(stream, **parts, **texts)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> SplitManifest:
        """Read a manifest: one that :meth:`save` wrote, or any ``.npz`` with the same parts.

        Raises:
            UserError: the file is missing, is no ``.npz``, lacks a part, holds something else than
                row numbers, or its rows do not have the hash written beside them.
        """
        arrays = _read_npz(Path(path))
        missing = [part for part in PARTS if part != "val" and part not in arrays]
        if missing:
            raise UserError(
                f"Split file '{path}' lacks {', '.join(missing)}; it holds "
                f"{', '.join(arrays) or 'nothing'} and needs train, query and database."
            )
        parts = {part: _row_numbers(arrays[part], part, path) for part in PARTS if part in arrays}
        rule = str(arrays["rule"]) if "rule" in arrays else f"file {Path(path).name}"
        manifest = cls(**parts, rule=rule)
        if "hash" in arrays and str(arrays["hash"]) != manifest.hash:
            raise UserError(
                f"Split file '{path}' says hash {arrays['hash']}, but its rows have "
                f"{manifest.hash}; it was changed or damaged: make it again."
            )
        return manifest

    def check(self, n_rows: int, owner: str = "the dataset") -> None:
        """Check that the parts fit ``n_rows`` rows and each other.

        Raises:
            UserError: a part other than ``val`` is empty, a row number is not in 0..n_rows-1 or
                occurs twice in a part, or two parts overlap that must not.
        """
        for part, count in self.counts.items():
            if count == 0 and part != "val":
                raise UserError(
                    f"The split ({self.rule}) has no {part} row of the {n_rows} rows of "
                    f"{owner}; see dataset.split.query, dataset.split.train and "
                    "dataset.split.train_in_database."
                )
            rows = getattr(self, part)
            outside = rows[(rows < 0) | (rows >= n_rows)]
            if len(outside):
                raise UserError(
                    f"The split ({self.rule}) names {part} row {outside[0]}, but {owner} has "
                    f"{n_rows} rows (0 to {n_rows - 1}); the split belongs to other data."
                )
            if len(np.unique(rows)) < count:
                values, times = np.unique(rows, return_counts=True)
                raise UserError(
                    f"The split ({self.rule}) names {part} row {values[times > 1][0]} twice; "
                    f"{int((times > 1).sum())} rows of that part are repeated."
                )
        for one, other in DISJOINT:
            shared = np.intersect1d(getattr(self, one), getattr(self, other))
            if len(shared):
                raise UserError(
                    f"The split ({self.rule}) has {len(shared)} rows in both {one} and {other}, "
                    f"row {shared[0]} first; the two must be disjoint."
                )


def make_split(
    config: SplitConfig,
    labels: np.ndarray,
    seen_classes: tuple[int, ...] = (),
    root: Path | None = None,
) -> SplitManifest:
    """Apply the rule of ``config`` to the rows of ``labels`` and check the result.

    Args:
        config: the rule and its numbers.
        labels: float32 [N,C], 0/1.
        seen_classes: for ``seen_unseen``, the classes that may be trained on.
        root: the dataset's folder, where a relative ``dataset.split.file`` starts.

    Raises:
        UserError: the numbers do not fit the rows, or the parts overlap; one sentence.
    """
    if config.rule not in RULES:
        raise unknown_name("split rule (dataset.split.rule)", config.rule, RULES)
    for key in ("query", "train"):
        value = getattr(config, key)
        share = isinstance(value, float)
        if value is not None and (value <= 0 or (share and value >= 1)):
            accepted = "a share between 0 and 1" if share else "at least one row"
            raise UserError(f"dataset.split.{key}={value}: {accepted} is needed.")
    if not 0 <= config.seed < 2**32:
        raise UserError(
            f"dataset.split.seed={config.seed}: a number from 0 to 4294967295 is needed."
        )
    if config.file is not None and config.rule != "file":
        raise UserError(
            f"dataset.split.file={config.file} is read only with dataset.split.rule=file, but the "
            f"rule is {config.rule}; set the one, or dataset.split.file=null."
        )
    manifest = RULES[config.rule](config, np.asarray(labels), tuple(seen_classes), root)
    manifest.check(len(labels))
    return manifest


def _permutation(
    config: SplitConfig, labels: np.ndarray, seen: tuple[int, ...], root: Path | None
) -> SplitManifest:
    """DCMHT's and MITH's split; with both numbers given, row for row the references'."""
    n = len(labels)
    query = _count(0.1 if config.query is None else config.query, n)
    train = n - query if config.train is None else _count(config.train, n - query)
    if query + train > n or query >= n:
        settings = f"dataset.split.query={query}"
        if config.train is not None:
            settings += f" and dataset.split.train={train}"
        raise UserError(f"{settings} ask for more rows than the {n} there are; give fewer.")
    order = np.random.RandomState(config.seed).permutation(n).astype(np.int64)
    return SplitManifest(
        train=order[query : query + train],
        query=order[:query],
        database=order[query if config.train_in_database else query + train :],
        rule=f"permutation, seed {config.seed}",
    )


def _per_class(
    config: SplitConfig, labels: np.ndarray, seen: tuple[int, ...], root: Path | None
) -> SplitManifest:
    """``query`` and ``train`` random rows of every class; database = every row that is no query."""
    order = np.random.RandomState(config.seed).permutation(len(labels))
    all_classes = tuple(range(labels.shape[1]))
    taken = np.zeros(len(labels), dtype=bool)
    query = _draw("query", config.query, labels, all_classes, order, taken)
    database = np.flatnonzero(~taken)
    train = _draw("train", config.train, labels, all_classes, order, taken)
    if not config.train_in_database:
        database = np.setdiff1d(database, train)
    return SplitManifest(train, query, database, rule=f"per_class, seed {config.seed}")


def _seen_unseen(
    config: SplitConfig, labels: np.ndarray, seen: tuple[int, ...], root: Path | None
) -> SplitManifest:
    """Train on seen classes, query with unseen ones; database = the rest (and train, if set)."""
    n_classes = labels.shape[1]
    unseen = tuple(c for c in range(n_classes) if c not in set(seen))
    if not seen or not unseen or not set(seen) <= set(range(n_classes)):
        raise UserError(
            "dataset.split.rule=seen_unseen needs seen and unseen classes, but "
            f"{len(set(seen))} of the {n_classes} classes are said to be seen; name them in the "
            "dataset's keys, or take dataset.split.rule=per_class."
        )
    order = np.random.RandomState(config.seed).permutation(len(labels))
    taken = np.zeros(len(labels), dtype=bool)
    query = _draw("query", config.query, labels, unseen, order, taken)
    not_trainable = taken | (labels[:, unseen] > 0).any(1)
    train = _draw("train", config.train, labels, tuple(sorted(seen)), order, not_trainable)
    used = query if config.train_in_database else np.concatenate([query, train])
    database = np.setdiff1d(np.arange(len(labels)), used)
    return SplitManifest(train, query, database, rule=f"seen_unseen, seed {config.seed}")


def _from_file(
    config: SplitConfig, labels: np.ndarray, seen: tuple[int, ...], root: Path | None
) -> SplitManifest:
    """Read row numbers from ``dataset.split.file``."""
    if not config.file:
        raise UserError(
            "dataset.split.rule=file needs dataset.split.file: an .npz with train, query, database."
        )
    path = Path(config.file).expanduser()
    if not path.is_absolute() and root is not None:
        path = Path(root) / path
    return SplitManifest.load(path)


Rule = Callable[[SplitConfig, np.ndarray, tuple[int, ...], "Path | None"], SplitManifest]
RULES: dict[str, Rule] = {
    "permutation": _permutation,
    "per_class": _per_class,
    "seen_unseen": _seen_unseen,
    "file": _from_file,
}


def _count(number: int | float, n: int) -> int:
    """Return a number of rows; a share is taken of ``n``: at least 1, or 0 where n < 2."""
    if isinstance(number, int):
        return number
    share = int(round(n * number, 6))  # 0.29 of 100 is 29, whatever floats say
    return max(1, share) if n > 1 else 0


def _draw(
    part: str,
    per_class: int | float | None,
    labels: np.ndarray,
    classes: tuple[int, ...],
    order: np.ndarray,
    taken: np.ndarray,
) -> np.ndarray:
    """Draw rows of each class in ``order``, marking them in ``taken``; returns them sorted.

    ``per_class`` None means a tenth of each class (query) or all that is left (train).
    """
    chosen = []
    for c in classes:
        available = order[(labels[order, c] > 0) & ~taken[order]]
        if per_class is None:
            count = _count(0.1, len(available)) if part == "query" else len(available)
        else:
            count = _count(per_class, len(available))
        if count > len(available):
            raise UserError(
                f"dataset.split.{part}={per_class} rows per class, but class {c} has only "
                f"{len(available)} rows left to draw from; give fewer."
            )
        chosen.append(available[:count])
        taken[chosen[-1]] = True
    return np.sort(np.fromiter(itertools.chain.from_iterable(chosen), dtype=np.int64))


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an ``.npz``, unpickling nothing."""
    check_plain_file(path)
    if not path.is_file():
        raise UserError(f"Split file '{path}' does not exist (dataset.split.file).")
    try:
        with open_npz(path) as archive:
            return {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"Split file '{path}' is no .npz of plain number arrays ({error}); write it with "
            "numpy.savez(path, train=…, query=…, database=…)."
        ) from error


def _row_numbers(array: np.ndarray, part: str, path: str | Path) -> np.ndarray:
    """Return ``array`` as int64 [n]; refuse anything but row numbers."""
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise UserError(
            f"'{part}' in split file '{path}' is {array.dtype} of shape {array.shape}; a list of "
            "row numbers (whole numbers, one axis, 0-based) is needed."
        )
    return array.astype(np.int64)
