"""``main.py verify``: whether a prepared dataset is what its protocol says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dataset.base import HashDataset
from dataset.images import FileImages
from dataset.preparation.checks import (
    SHOWN,
    Finding,
    Pictures,
    caption_findings,
    counted,
    counts_of,
    label_findings,
    named,
    per_class_findings,
    picture_findings,
    read_pictures,
    split_findings,
    twin_findings,
)
from dataset.preparation.index import OFFICIAL, Index, check_rows, read_index
from dataset.preparation.prepare import read_mat, splits_file
from dataset.preparation.prepared_dataset import PreparedConfig, as_dataset
from dataset.preparation.protocol import Protocol, Selection
from dataset.preparation.rows import Attributes
from dataset.preparation.selection import draw, select
from dataset.splits import SplitManifest
from utils.errors import UserError

_UNREADABLE = (UserError, OSError, ValueError, LookupError)  # what damaged files lead to


def verify_prepared(config: PreparedConfig, quick: bool = False) -> list[Finding]:
    """Check a prepared dataset: as any other, and against its protocol and official files.

    Args:
        config: which dataset, where, and which split.
        quick: whether pictures and official files are not read again.

    Raises:
        UserError: it has no index yet, or one that cannot be read.
    """
    source, protocol, root = config.source, config.protocol(), config.folder
    index, stated = read_index(root, source.name)
    findings = [Finding("index content", index.content, stated, index.content == stated)]
    try:
        selection = select(source, index, protocol, root, config.lists)
    except UserError as error:
        return [*findings, Finding("split", str(error), protocol.name, False)]
    findings += _left_out(index, selection)
    try:
        split = draw(selection, protocol)
    except UserError as error:  # the rows are looked at all the same
        findings.append(Finding("split", str(error), protocol.name, False))
        none = np.empty(0, np.int64)
        split = SplitManifest(none, none, np.arange(len(selection)))
    dataset = as_dataset(config, source.name, selection, split)
    findings += [
        *_figures(config, protocol, dataset),
        *per_class_findings(dataset, protocol.per_class),
        *_manifest(config, dataset, root),
        *_sizes(dataset, index, selection),
    ]
    if not quick:
        findings += _statements(config, index, root)
        findings += _attributes(config, index, root)
    findings += split_findings(dataset, protocol.overlap)
    findings += label_findings(dataset, protocol.published.get("unlabelled", 0))
    findings += caption_findings(dataset)
    known = digests = index.image_digests[selection.rows]
    if not quick:
        pictures = read_pictures(dataset)
        findings += picture_findings(dataset, pictures)
        findings += _changed(dataset, pictures, known)
        digests = pictures.digests
    return [*findings, *twin_findings(dataset, digests, protocol.overlap)]


def _figures(config: PreparedConfig, protocol: Protocol, dataset: HashDataset) -> Iterator[Finding]:
    """Counts against the published ones; numbers that the user gave take their place."""
    given = {part for part in ("train", "query") if getattr(config.choice, part) is not None}
    for name, count in counts_of(dataset).items():
        stated = None if name in given else protocol.published.get(name)
        if name in given:
            yield Finding(f"{name} rows", f"{count:,}", "(number given by dataset.split)")
        elif stated is None:
            yield Finding(counted(name), f"{count:,}")
        else:
            yield Finding(counted(name), f"{count:,}", f"{stated:,}", count == stated)


def _left_out(index: Index, selection: Selection) -> Iterator[Finding]:
    """Rows that the protocol does not use, and which of them carry no label at all."""
    rest = np.setdiff1d(np.arange(len(index.rows)), selection.rows)
    bare = np.flatnonzero(~index.rows.labels.any(1))
    yield Finding("rows of the index left out", f"{len(rest):,} of {len(index.rows):,}")
    names = [index.rows.paths[row] for row in bare]
    yield Finding("rows of the index without any label", named(names))


def _changed(dataset: HashDataset, pictures: Pictures, known: np.ndarray) -> Iterator[Finding]:
    """Pictures with other content than when the index was written."""
    both = np.any(pictures.digests, axis=1) & np.any(known, axis=1)
    differ = np.any(np.not_equal(pictures.digests, known), axis=1)
    changed = np.flatnonzero(np.logical_and(both, differ))
    names = [dataset.images.name(int(row)) for row in changed]
    yield Finding("pictures changed since prepare", named(names), "0", not names)


def _sizes(dataset: HashDataset, index: Index, selection: Selection) -> Iterator[Finding]:
    """Picture files that are not there, or not as large as when the index was written."""
    images = dataset.images
    if not isinstance(images, FileImages) or images.archive is not None:
        return
    differ, absent = [], []
    for name, row in zip(images.names, selection.rows.tolist(), strict=True):
        path = images.root / name
        size = path.stat().st_size if path.is_file() else -1
        if size < 0:
            absent.append(str(path))
        elif size != index.image_bytes[row]:
            differ.append(str(path))
    for check, names in (("files that are not there", absent), ("files of another size", differ)):
        yield Finding(check, named(names), "0", not names)


def _manifest(config: PreparedConfig, dataset: HashDataset, root: Path) -> Iterator[Finding]:
    """The split's hash against the one that ``prepare`` wrote down."""
    if config.protocol() != config.source.protocol(config.choice.name) or config.choice.lists:
        yield Finding("split hash", dataset.split.hash, "(numbers given by dataset.split)")
        return
    file = splits_file(root, config.source.name)
    try:
        stated = json.loads(file.read_text(encoding="utf-8"))[config.choice.name].get("hash")
    except (OSError, ValueError, KeyError, AttributeError):
        yield Finding("split hash", dataset.split.hash, f"none in '{file}'", False)
        return
    if stated is None:  # list files that came later
        yield Finding("split hash", dataset.split.hash)
        return
    yield Finding("split hash", dataset.split.hash, stated, stated == dataset.split.hash)


def _statements(config: PreparedConfig, index: Index, root: Path) -> Iterator[Finding]:
    """The official files, read again, against the index."""
    try:
        rows = config.source.read(root) if index.layout == OFFICIAL else read_mat(root)
        rows = check_rows(rows, config.source.name)
    except _UNREADABLE as error:
        yield Finding("official files", str(error), "readable", False)
        return
    yield from _same_rows(index, dataclasses.replace(index, rows=rows), "official files")


def _same_rows(index: Index, now: Index, what: str) -> Iterator[Finding]:
    """What the files say now against what the index holds."""
    if index.content == now.content:
        yield Finding(what, "say what the index holds", "the same", True)
        return
    old, new = index.rows, now.rows
    differ = [
        name
        for name in ("keys", "paths", "class_names", "texts")
        if getattr(old, name) != getattr(new, name)
    ]
    if old.labels.shape != new.labels.shape:
        differ.append(f"labels ({new.labels.shape} instead of {old.labels.shape})")
    elif not np.array_equal(old.labels, new.labels):
        rows = np.flatnonzero((old.labels != new.labels).any(1))
        differ.append(f"labels of rows {named([old.paths[row] for row in rows])}")
    told = ", ".join(differ) or "attributes, subsets or extras"
    yield Finding(what, f"differ from the index in {told}", "the same", False)


def _attributes(config: PreparedConfig, index: Index, root: Path) -> Iterator[Finding]:
    """The index's attributes against every official statement of them, by class name."""
    held = index.rows.attributes
    if held is None:
        return
    names = index.rows.class_names
    statements: tuple[Attributes, ...] = ()
    try:
        statements = config.source.attributes(root)
    except _UNREADABLE as error:
        yield Finding("attributes by class name", str(error), "readable", False)
    for number, stated in enumerate(statements):
        check = "attributes by class name" + (f", file {number + 1}" if number else "")
        try:
            values = stated.for_classes(names)
        except UserError as error:
            yield Finding(check, str(error), "a row per class", False)
            continue
        same = np.zeros(len(names), bool)
        if values.shape == held.values.shape:
            same = np.isclose(values, held.values).all(1)
        wrong = np.flatnonzero(~same)
        if not len(wrong):
            yield Finding(check, f"{len(names)} classes agree", f"{len(names)}", True)
            continue
        told = [_whose(int(c), held.values, values, names) for c in wrong[:SHOWN]]
        yield Finding(check, f"{len(wrong)} classes differ ({'; '.join(told)})", "0", False)


def _whose(c: int, held: np.ndarray, values: np.ndarray, names: tuple[str, ...]) -> str:
    """Say which other class's attributes class ``c`` carries, if any."""
    if held.shape != values.shape:
        return f"{held.shape[1]} attributes in the index, {values.shape[1]} in the file"
    other = np.flatnonzero(np.isclose(values, held[c]).all(1))
    return f"{names[c]} has those of {names[other[0]]}" if len(other) else names[c]
