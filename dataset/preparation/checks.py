"""Checks that any dataset can be put to: its split, labels, texts and pictures.

Each gives findings: what was found, what is expected, and whether they agree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from dataset.base import BadImageError, HashDataset
from dataset.preparation.scan import in_threads, picture_digest
from dataset.splits import PARTS

SHOWN = 3
"""Names in a finding."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        check: what was looked at.
        found: what is there.
        expected: what should be; empty where nothing is stated.
        ok: False where they differ; None where the line only informs.
    """

    check: str
    found: str
    expected: str = ""
    ok: bool | None = None


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What was read of the pictures of n rows.

    Attributes:
        problems: row → what is wrong with its picture.
        digests: uint8 [n,16]; zeros where there is no picture.
    """

    problems: Mapping[int, str]
    digests: np.ndarray


def named(names: Sequence[str]) -> str:
    """Return how many names there are, and the first of them.

    >>> named(["a", "b", "c", "d"])
    '4 (a, b, c and 1 more)'
    """
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    shown = f" ({', '.join(names[:SHOWN])}{more})" if len(names) else ""
    return f"{len(names):,}{shown}"


def _rows(dataset: HashDataset, rows: np.ndarray) -> str:
    """Return how many rows there are, and the pictures of the first of them."""
    return named([dataset.images.name(int(row)) for row in rows])


def verify_dataset(dataset: HashDataset, quick: bool = False) -> list[Finding]:
    """Check the split, the labels, the texts and the pictures of any dataset.

    Args:
        dataset: as training sees it.
        quick: whether pictures are not opened.
    """
    findings = [
        *count_findings(dataset),
        *split_findings(dataset),
        *label_findings(dataset),
        *caption_findings(dataset),
    ]
    if not quick:
        pictures = read_pictures(dataset)
        findings += picture_findings(dataset, pictures)
        findings += twin_findings(dataset, pictures.digests)
    return findings


def counts_of(dataset: HashDataset) -> dict[str, int]:
    """Return the numbers of rows, of classes and of the rows of every part that has some."""
    parts = {part: n for part, n in dataset.split.counts.items() if n or part != "val"}
    return {"rows": len(dataset), "classes": dataset.labels.shape[1], **parts}


def counted(name: str) -> str:
    """Return what to call a number of :func:`counts_of`."""
    return {"rows": "rows in all", "classes": "classes"}.get(name, f"{name} rows")


def count_findings(dataset: HashDataset) -> Iterator[Finding]:
    """Rows, classes, the rows of every part, and the split's hash; nothing to hold them to."""
    for name, count in counts_of(dataset).items():
        yield Finding(counted(name), f"{count:,}")
    used = np.unique(np.concatenate([getattr(dataset.split, part) for part in PARTS]))
    yield Finding("rows in no part", f"{len(dataset) - len(used):,}")
    yield from per_class_findings(dataset)
    yield Finding("split hash", dataset.split.hash)


def per_class_findings(
    dataset: HashDataset, stated: Mapping[str, int] | None = None
) -> Iterator[Finding]:
    """Rows of every class in each part that has any of it; ``stated`` is what it should be."""
    for part in ("train", "query", "database"):
        counts = dataset.labels[getattr(dataset.split, part)].sum(0).astype(int)
        there = np.flatnonzero(counts)
        if not len(there):
            continue
        least, most = counts[there].min(), counts[there].max()
        span = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        found = f"{span} of {len(there)} classes"
        expected = (stated or {}).get(part)
        if expected is None:
            yield Finding(f"{part} rows per class", found)
            continue
        wrong = [c for c in there if counts[c] != expected]
        first = f"; {dataset.class_names[wrong[0]]} has {counts[wrong[0]]}" if wrong else ""
        yield Finding(f"{part} rows per class", f"{found}{first}", f"{expected:,}", not wrong)


def read_pictures(dataset: HashDataset) -> Pictures:
    """Read and decode every picture that the split uses, several at a time."""
    images = dataset.images
    used = np.unique(np.concatenate([getattr(dataset.split, part) for part in PARTS]))

    def look(place: int) -> tuple[np.ndarray, str]:
        row = int(used[place])
        _, digest = picture_digest(images, row)
        try:
            images.decode(row)
        except BadImageError as error:
            return digest, str(error)
        return digest, ""

    digests = np.zeros((len(images), 16), np.uint8)
    problems = {}
    for place, (digest, problem) in enumerate(in_threads(look, len(used), "checking pictures")):
        digests[used[place]] = digest
        if problem:
            problems[int(used[place])] = problem
    return Pictures(problems, digests)


def split_findings(dataset: HashDataset, overlap: bool = False) -> Iterator[Finding]:
    """Rows that stand in two parts."""
    split = dataset.split
    for other in ("database", "train"):
        shared = np.intersect1d(split.query, getattr(split, other))
        expected = "as released, a fault that this split repeats" if overlap else "0"
        yield Finding(
            f"queries among the {other} rows", _rows(dataset, shared), expected,
            None if overlap else not len(shared),
        )  # fmt: skip
    kept = len(np.intersect1d(split.train, split.database))
    yield Finding("training rows in the database", f"{kept:,} of {len(split.train):,}")


def label_findings(dataset: HashDataset, unlabelled: int = 0) -> Iterator[Finding]:
    """Rows without any label (``unlabelled`` are stated), and single-label data with two."""
    counts = dataset.labels.sum(1)
    bare = np.flatnonzero(counts == 0)
    yield Finding(
        "rows without a label", _rows(dataset, bare), f"{unlabelled:,}", len(bare) == unlabelled
    )
    width, names = dataset.labels.shape[1], len(dataset.class_names)
    mean = f"{width} columns, {counts.mean():.2f} labels a row"
    yield Finding("label width", mean, f"{names} class names", width == names)
    yield Finding("labels per row", f"{counts.min():.0f} to {counts.max():.0f}")
    if not dataset.multi_label:
        several = int((counts > 1).sum())
        yield Finding("rows with several labels", f"{several:,}", "0", several == 0)


def caption_findings(dataset: HashDataset) -> Iterator[Finding]:
    """How many texts there are and how long they are."""
    if dataset.texts is None:
        return
    texts = [[text for text in own if text.strip()] for own in dataset.texts]
    counts = np.array([len(own) for own in texts])
    words = np.array([len(text.split()) for own in texts for text in own] or [0])
    yield Finding(
        "captions per row", f"{counts.min()} to {counts.max()}, {counts.mean():.2f} on average"
    )
    yield Finding(
        "words per caption", f"{words.min()} to {words.max()}, {words.mean():.1f} on average"
    )
    bare = np.flatnonzero(counts == 0)
    yield Finding("rows without a caption", _rows(dataset, bare))


def picture_findings(dataset: HashDataset, pictures: Pictures) -> Iterator[Finding]:
    """Pictures that are missing or cannot be decoded."""
    missing: list[str] = []
    broken: list[str] = []
    for row, problem in pictures.problems.items():
        (broken if pictures.digests[row].any() else missing).append(problem)
    for check, problems in (("missing pictures", missing), ("broken pictures", broken)):
        yield Finding(check, named(problems), "0", not problems)


def twin_findings(
    dataset: HashDataset, digests: np.ndarray, overlap: bool = False
) -> Iterator[Finding]:
    """Query and database pictures of equal content under different row numbers."""
    words = np.ascontiguousarray(digests).view("V16").reshape(-1)
    there = np.any(digests, axis=1)
    query, database = (
        rows[there[rows]] for rows in (dataset.split.query, dataset.split.database)
    )  # fmt: skip
    first: dict[bytes, int] = {}
    for row in database.tolist():
        first.setdefault(words[row].tobytes(), row)
    pairs = [
        (row, first[key])
        for row in query.tolist()
        if (key := words[row].tobytes()) in first and first[key] != row
    ]
    told = [f"{dataset.images.name(a)} = {dataset.images.name(b)}" for a, b in pairs]
    yield Finding(
        "queries whose picture is also in the database", named(told),
        "" if overlap else "0", None if overlap else not pairs,
    )  # fmt: skip
