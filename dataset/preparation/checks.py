"""Checks of any dataset: its split, labels, texts and images.

Each check yields findings: a value, the expected one, and whether they agree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from dataset.base import BadImageError, HashDataset
from dataset.images import FileImages, in_threads
from dataset.picture_forms import PLAIN, counted, treatment
from dataset.preparation.scan import THREADS_PER_CORE, image_digest
from dataset.splits import PARTS

SHOWN = 3
"""Names in a finding."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        check: what is checked.
        value: as measured.
        expected: the value it should have; empty where none is stated.
        ok: False where they differ; None where the line only informs.
    """

    check: str
    value: str
    expected: str = ""
    ok: bool | None = None


@dataclasses.dataclass(frozen=True)
class CheckedImages:
    """The images of n rows, as read and decoded.

    Attributes:
        problems: row → why its image is unusable.
        digests: uint8 [n,16]; zeros where there is no image.
        forms: what the file of each readable image holds; empty where images are no files.
    """

    problems: Mapping[int, str]
    digests: np.ndarray
    forms: Sequence[str] = ()


def abbreviate(names: Sequence[str]) -> str:
    """Return how many names there are, and the first of them.

    >>> abbreviate(["a", "b", "c", "d"])
    '4 (a, b, c and 1 more)'
    """
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    shown = f" ({', '.join(names[:SHOWN])}{more})" if len(names) else ""
    return f"{len(names):,}{shown}"


def _rows(dataset: HashDataset, rows: np.ndarray) -> str:
    """Return how many rows there are, and the images of the first of them."""
    return abbreviate([dataset.images.name(int(row)) for row in rows])


def verify_dataset(dataset: HashDataset, quick: bool = False) -> list[Finding]:
    """Check the split, labels and texts of any dataset and, unless ``quick``, its images."""
    findings = [
        *count_findings(dataset),
        *split_findings(dataset),
        *label_findings(dataset),
        *caption_findings(dataset),
    ]
    if not quick:
        checked = check_images(dataset)
        findings += image_findings(dataset, checked)
        findings += duplicate_findings(dataset, checked.digests)
    return findings


def counts_of(dataset: HashDataset) -> dict[str, int]:
    """Return the numbers of rows, of classes and of the rows of every part that has some."""
    parts = {part: n for part, n in dataset.split.counts.items() if n or part != "val"}
    return {"rows": len(dataset), "classes": dataset.labels.shape[1], **parts}


def count_label(name: str) -> str:
    """Return the label of a number of :func:`counts_of`."""
    return {"rows": "rows in all", "classes": "classes"}.get(name, f"{name} rows")


def count_findings(dataset: HashDataset) -> Iterator[Finding]:
    """Rows, classes, the rows of every part, and the split's hash, with no expected values."""
    for name, count in counts_of(dataset).items():
        yield Finding(count_label(name), f"{count:,}")
    used = np.unique(np.concatenate([getattr(dataset.split, part) for part in PARTS]))
    yield Finding("rows in no part", f"{len(dataset) - len(used):,}")
    yield from per_class_findings(dataset)
    yield Finding("split hash", dataset.split.hash)


def per_class_findings(
    dataset: HashDataset, published: Mapping[str, int] | None = None
) -> Iterator[Finding]:
    """Rows of every class in each part that has any; ``published`` are the expected numbers."""
    for part in ("train", "query", "database"):
        counts = dataset.labels[getattr(dataset.split, part)].sum(0).astype(int)
        present = np.flatnonzero(counts)
        if not len(present):
            continue
        least, most = counts[present].min(), counts[present].max()
        span = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        value = f"{span} of {len(present)} classes"
        expected = (published or {}).get(part)
        if expected is None:
            yield Finding(f"{part} rows per class", value)
            continue
        wrong = [c for c in present if counts[c] != expected]
        first = f"; {dataset.class_names[wrong[0]]} has {counts[wrong[0]]}" if wrong else ""
        yield Finding(f"{part} rows per class", f"{value}{first}", f"{expected:,}", not wrong)


def check_images(dataset: HashDataset) -> CheckedImages:
    """Read and decode every image that the split uses, several at a time."""
    images = dataset.images
    used = np.unique(np.concatenate([getattr(dataset.split, part) for part in PARTS]))

    def check_image(position: int) -> tuple[np.ndarray, str]:
        row = int(used[position])
        _, digest = image_digest(images, row)
        try:
            images.decode(row)
        except BadImageError as error:
            return digest, str(error)
        return digest, ""

    digests = np.zeros((len(images), 16), np.uint8)
    problems = {}
    results = in_threads(check_image, len(used), "checking pictures", THREADS_PER_CORE)
    for row, (digest, problem) in zip(used.tolist(), results, strict=True):
        digests[row] = digest
        if problem:
            problems[row] = problem
    forms: list[str] = []
    if isinstance(images, FileImages):
        forms = [images.forms.get(row, PLAIN) for row in used.tolist() if row not in problems]
    return CheckedImages(problems, digests, forms)


def split_findings(dataset: HashDataset, overlap: bool = False) -> Iterator[Finding]:
    """Rows that are in two parts."""
    split = dataset.split
    for other in ("database", "train"):
        shared = np.intersect1d(split.query, getattr(split, other))
        expected = "as released, a fault that this split repeats" if overlap else "0"
        yield Finding(
            f"queries among the {other} rows", _rows(dataset, shared), expected,
            None if overlap else not len(shared),
        )  # fmt: skip
    shared = np.intersect1d(split.train, split.database)
    yield Finding("training rows in the database", f"{len(shared):,} of {len(split.train):,}")


def label_findings(dataset: HashDataset, unlabelled: int = 0) -> Iterator[Finding]:
    """Rows without any label (``unlabelled`` are expected), and single-label rows with two."""
    counts = dataset.labels.sum(1)
    rows = np.flatnonzero(counts == 0)
    yield Finding(
        "rows without a label", _rows(dataset, rows), f"{unlabelled:,}", len(rows) == unlabelled
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
    captions = [[text for text in texts if text.strip()] for texts in dataset.texts]
    counts = np.array([len(texts) for texts in captions])
    words = np.array([len(text.split()) for texts in captions for text in texts] or [0])
    yield Finding(
        "captions per row", f"{counts.min()} to {counts.max()}, {counts.mean():.2f} on average"
    )
    yield Finding(
        "words per caption", f"{words.min()} to {words.max()}, {words.mean():.1f} on average"
    )
    yield Finding("rows without a caption", _rows(dataset, np.flatnonzero(counts == 0)))


def image_findings(dataset: HashDataset, checked: CheckedImages) -> Iterator[Finding]:
    """Images that are missing or cannot be decoded; what the others hold."""
    missing: list[str] = []
    broken: list[str] = []
    for row, problem in checked.problems.items():
        (broken if checked.digests[row].any() else missing).append(problem)
    for check, problems in (("missing pictures", missing), ("broken pictures", broken)):
        yield Finding(check, abbreviate(problems), "0", not problems)
    if checked.forms and isinstance(dataset.images, FileImages):
        yield Finding("pictures by what they hold", counted(checked.forms))
        colour = dataset.images.colour
        done = {part for form in checked.forms for part in treatment(form, colour)}
        if done:
            yield Finding(f"done to them (colour={colour})", ", ".join(sorted(done)))


def duplicate_findings(
    dataset: HashDataset, digests: np.ndarray, overlap: bool = False
) -> Iterator[Finding]:
    """Query and database images of equal content under different row numbers."""
    words = np.ascontiguousarray(digests).view("V16").reshape(-1)
    present = np.any(digests, axis=1)
    query, database = (
        rows[present[rows]] for rows in (dataset.split.query, dataset.split.database)
    )  # fmt: skip
    first: dict[bytes, int] = {}
    for row in database.tolist():
        first.setdefault(words[row].tobytes(), row)
    pairs = [
        (row, first[key])
        for row in query.tolist()
        if (key := words[row].tobytes()) in first and first[key] != row
    ]
    names = [f"{dataset.images.name(a)} = {dataset.images.name(b)}" for a, b in pairs]
    yield Finding(
        "queries whose picture is also in the database", abbreviate(names),
        "" if overlap else "0", None if overlap else not pairs,
    )  # fmt: skip
