"""``main.py verify``: check a prepared dataset against its protocol and official files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dataset.base import HashDataset
from dataset.preparation.checks import (
    SHOWN,
    CheckedImages,
    Finding,
    abbreviate,
    caption_findings,
    check_images,
    count_label,
    counts_of,
    duplicate_findings,
    image_findings,
    label_findings,
    per_class_findings,
    split_findings,
)
from dataset.preparation.index import OFFICIAL, Index, check_rows, read_index
from dataset.preparation.prepare import picture_root, read_mat, splits_file
from dataset.preparation.prepared_dataset import PreparedConfig, as_dataset
from dataset.preparation.protocol import Protocol, Selection
from dataset.preparation.rows import Attributes
from dataset.preparation.scan import file_size
from dataset.preparation.selection import draw, select
from dataset.splits import SplitManifest
from utils.errors import UserError

_UNREADABLE = (UserError, OSError, ValueError, LookupError)  # errors of damaged files


def verify_prepared(config: PreparedConfig, quick: bool = False) -> list[Finding]:
    """Check a prepared dataset like any other, and against its protocol and official files.

    With ``quick`` images and official files are not read again.

    Raises:
        UserError: it has no index yet, or an unreadable one.
    """
    findings, examined = examine(config)
    if examined is None:
        return findings
    root, protocol = config.folder, config.protocol()
    index, selection, dataset = examined.index, examined.selection, examined.dataset
    findings += _sizes(dataset, index, selection)
    if not quick:
        findings += _statements(config, index, root)
        findings += _attributes(config, index, root)
    findings += split_findings(dataset, protocol.overlap)
    findings += label_findings(dataset, protocol.published.get("unlabelled", 0))
    findings += caption_findings(dataset)
    stored = digests = index.image_digests[selection.rows]
    if not quick:
        checked = check_images(dataset)
        findings += image_findings(dataset, checked)
        findings += _changed(dataset, checked, stored)
        digests = checked.digests
    return [*findings, *duplicate_findings(dataset, digests, protocol.overlap)]


@dataclasses.dataclass(frozen=True)
class Examined:
    """A prepared dataset as its index states it.

    Attributes:
        index: of all rows.
        selection: the rows that the protocol uses.
        dataset: these rows under its split; a split without rows where it cannot be drawn.
    """

    index: Index
    selection: Selection
    dataset: HashDataset


def examine(config: PreparedConfig) -> tuple[list[Finding], Examined | None]:
    """Compare the index of a prepared dataset with its protocol; no other file is looked at.

    Returns:
        The findings, and the dataset; None where the protocol has no rows in this index.

    Raises:
        UserError: it has no index yet, or an unreadable one.
    """
    source, protocol, root = config.source, config.protocol(), config.folder
    index, recorded = read_index(root, source.name)
    findings = [Finding("index content", index.content, recorded, index.content == recorded)]
    try:
        selection = select(source, index, protocol, root, config.lists)
    except UserError as error:
        return [*findings, Finding("split", str(error), protocol.name, False)], None
    findings += _left_out(index, selection)
    try:
        split = draw(selection, protocol)
    except UserError as error:  # the rows are checked all the same
        findings.append(Finding("split", str(error), protocol.name, False))
        none = np.empty(0, np.int64)
        split = SplitManifest(none, none, np.arange(len(selection)))
    dataset = as_dataset(config, source.name, selection, split)
    findings += [
        *_figures(config, protocol, dataset),
        *per_class_findings(dataset, {} if _overridden(config) else protocol.per_class),
        *_manifest(config, dataset, root),
    ]
    return findings, Examined(index, selection, dataset)


def _figures(config: PreparedConfig, protocol: Protocol, dataset: HashDataset) -> Iterator[Finding]:
    """Counts against the published ones, except for numbers that the user has set."""
    overridden = _overridden(config)
    for name, count in counts_of(dataset).items():
        published = None if name in overridden else protocol.published.get(name)
        if name in overridden:
            yield Finding(f"{name} rows", f"{count:,}", "(number given by dataset.split)")
        elif published is None:
            yield Finding(count_label(name), f"{count:,}")
        else:
            yield Finding(count_label(name), f"{count:,}", f"{published:,}", count == published)


def _overridden(config: PreparedConfig) -> set[str]:
    """Return the parts whose numbers the user has set; the database is what the others leave."""
    parts = {part for part in ("train", "query") if getattr(config.choice, part) is not None}
    return parts | {"database"} if parts else parts


def _left_out(index: Index, selection: Selection) -> Iterator[Finding]:
    """Rows that the protocol does not use, and rows of the index without any label."""
    unused = np.setdiff1d(np.arange(len(index.rows)), selection.rows)
    unlabelled = np.flatnonzero(~index.rows.labels.any(1))
    yield Finding("rows of the index left out", f"{len(unused):,} of {len(index.rows):,}")
    names = [index.rows.paths[row] for row in unlabelled]
    yield Finding("rows of the index without any label", abbreviate(names))


def _changed(dataset: HashDataset, checked: CheckedImages, stored: np.ndarray) -> Iterator[Finding]:
    """Images whose content has changed since the index was written."""
    both = np.any(checked.digests, axis=1) & np.any(stored, axis=1)
    differ = np.any(np.not_equal(checked.digests, stored), axis=1)
    changed = np.flatnonzero(np.logical_and(both, differ))
    names = [dataset.images.name(int(row)) for row in changed]
    yield Finding("pictures changed since prepare", abbreviate(names), "0", not names)


def _sizes(dataset: HashDataset, index: Index, selection: Selection) -> Iterator[Finding]:
    """Image files that are missing, or whose size has changed since the index was written."""
    differ, absent = [], []
    for position, row in enumerate(selection.rows.tolist()):
        size = file_size(dataset.images, position)
        if size is None:
            return
        if size < 0:
            absent.append(dataset.images.name(position))
        elif size != index.image_bytes[row]:
            differ.append(dataset.images.name(position))
    for check, names in (("files that are not there", absent), ("files of another size", differ)):
        yield Finding(check, abbreviate(names), "0", not names)


def _manifest(config: PreparedConfig, dataset: HashDataset, root: Path) -> Iterator[Finding]:
    """The split's hash against the one that ``prepare`` recorded."""
    if config.protocol() != config.source.protocol(config.choice.name) or config.choice.lists:
        yield Finding("split hash", dataset.split.hash, "(numbers given by dataset.split)")
        return
    file = splits_file(root, config.source.name)
    try:
        recorded = json.loads(file.read_text(encoding="utf-8"))[config.choice.name].get("hash")
    except (OSError, ValueError, KeyError, AttributeError):
        yield Finding("split hash", dataset.split.hash, f"none in '{file}'", False)
        return
    if recorded is None:  # list files that came later
        yield Finding("split hash", dataset.split.hash)
        return
    yield Finding("split hash", dataset.split.hash, recorded, recorded == dataset.split.hash)


def _statements(config: PreparedConfig, index: Index, root: Path) -> Iterator[Finding]:
    """The official files, read again, against the index."""
    try:
        if index.layout == OFFICIAL:
            rows = config.source.read(root)
        else:
            rows = read_mat(root, picture_root(index))
        rows = check_rows(rows, config.source.name)
    except _UNREADABLE as error:
        yield Finding("official files", str(error), "readable", False)
        return
    if index.content == dataclasses.replace(index, rows=rows).content:
        yield Finding("official files", "say what the index holds", "the same", True)
        return
    old, new = index.rows, rows
    differ = [
        name
        for name in ("keys", "paths", "class_names", "texts", "variants")
        if getattr(old, name) != getattr(new, name)
    ]
    if old.labels.shape != new.labels.shape:
        differ.append(f"labels ({new.labels.shape} instead of {old.labels.shape})")
    elif not np.array_equal(old.labels, new.labels):
        changed = np.flatnonzero((old.labels != new.labels).any(1))
        differ.append(f"labels of rows {abbreviate([old.paths[row] for row in changed])}")
    described = ", ".join(differ) or "attributes, subsets or extras"
    yield Finding("official files", f"differ from the index in {described}", "the same", False)


def _attributes(config: PreparedConfig, index: Index, root: Path) -> Iterator[Finding]:
    """The index's attributes against every official statement of them, by class name."""
    stored = index.rows.attributes
    if stored is None:
        return
    names = index.rows.class_names
    statements: tuple[Attributes, ...] = ()
    try:
        statements = config.source.attributes(root)
    except _UNREADABLE as error:
        yield Finding("attributes by class name", str(error), "readable", False)
    for number, statement in enumerate(statements):
        check = "attributes by class name" + (f", file {number + 1}" if number else "")
        try:
            values = statement.for_classes(names)
        except UserError as error:
            yield Finding(check, str(error), "a row per class", False)
            continue
        same = np.zeros(len(names), bool)
        if values.shape == stored.values.shape:
            same = np.isclose(values, stored.values).all(1)
        wrong = np.flatnonzero(~same)
        if not len(wrong):
            yield Finding(check, f"{len(names)} classes agree", f"{len(names)}", True)
            continue
        described = [_describe_class(int(c), stored.values, values, names) for c in wrong[:SHOWN]]
        yield Finding(check, f"{len(wrong)} classes differ ({'; '.join(described)})", "0", False)


def _describe_class(c: int, stored: np.ndarray, values: np.ndarray, names: tuple[str, ...]) -> str:
    """Return the name of class ``c`` and of the class whose attributes it carries, if any."""
    if stored.shape != values.shape:
        return f"{stored.shape[1]} attributes in the index, {values.shape[1]} in the file"
    other = np.flatnonzero(np.isclose(values, stored[c]).all(1))
    return f"{names[c]} has those of {names[other[0]]}" if len(other) else names[c]
