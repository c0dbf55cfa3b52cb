"""Apply a protocol to an index: its rows, its columns of labels, its split."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dataset.preparation.index import MAT, Index
from dataset.preparation.lists import ListedRows, find_list, read_list
from dataset.preparation.protocol import Protocol, Selection
from dataset.preparation.source import Source
from dataset.splits import SplitManifest
from utils.errors import UserError

log = logging.getLogger("hashing")
LISTS = "lists"
"""Folder below the root where published list files are looked for, besides the root itself."""

_LEAST_AGREEMENT = 0.9  # Jaccard index of a list's column of labels and the annotations' column


def select(
    source: Source, index: Index, protocol: Protocol, root: Path, lists: Path | None = None
) -> Selection:
    """Apply ``protocol`` to ``index``, all but the draw.

    ``lists``: folder of published list files; by default ``lists`` below the root, or the root.

    Raises:
        UserError: a missing class, subset or list file, list files that do not fit the index, or
            no row in use.
    """
    columns = _columns(index, protocol)
    labels = index.rows.labels[:, columns]
    used = np.ones(len(labels), bool)
    if protocol.keep is not None and index.layout != MAT:  # a .mat file holds the used rows only
        used = index.subset(protocol.keep)
    listed: dict[str, np.ndarray] = {}
    trained_on = None
    if protocol.lists is not None:
        read = read_lists(protocol, list_folders(root, lists))
        if protocol.seen is not None:
            trained_on = _set_generated_aside(source, index, read)
        listed = {part: _index_rows(source, index, rows) for part, rows in read.items()}
        order = match_columns(read, listed, labels, [index.rows.class_names[c] for c in columns])
        columns, labels = columns[order], labels[:, order]
        for part, file_rows in read.items():
            labels[listed[part]] = file_rows.labels
        named = np.zeros(len(labels), bool)
        named[np.concatenate(list(listed.values()))] = True
        used = named if "database" in listed else named | (used & labels.any(1))
    elif not protocol.keep_unlabelled:
        used = used & labels.any(1)
    rows = _ordered(np.flatnonzero(used), index, protocol)
    if not len(rows):
        raise UserError(f"The split '{protocol.name}' keeps no row of {source.name}.")
    position = np.full(len(labels), -1, np.int64)
    position[rows] = np.arange(len(rows))
    names = tuple(index.rows.class_names[c] for c in columns)
    return Selection(
        index, rows, labels[rows].astype(np.float32), names, _seen(index, protocol, names),
        {part: position[index_rows] for part, index_rows in listed.items()},
        _texts(rows, index, protocol), trained_on,
    )  # fmt: skip


def _ordered(rows: np.ndarray, index: Index, protocol: Protocol) -> np.ndarray:
    """Return rows of the index in the protocol's order; a .mat file has its own."""
    if protocol.order is None or index.layout == MAT:
        return rows
    keys = index.rows.keys
    return rows[np.asarray(protocol.order([keys[row] for row in rows]), dtype=np.int64)]


def _texts(rows: np.ndarray, index: Index, protocol: Protocol) -> list[tuple[str, ...]] | None:
    """Return the protocol's texts of rows of the index, or None."""
    texts = index.texts(protocol.texts.variant if protocol.texts else "")
    if texts is None:
        return None
    absent = (protocol.texts.when_none if protocol.texts and index.layout != MAT else "",)
    return [texts[row] or absent for row in rows]


def list_folders(root: Path, lists: Path | None) -> list[Path]:
    """Return the folders where published lists are looked for."""
    return [lists] if lists is not None else [root / LISTS, root]


def draw(selection: Selection, protocol: Protocol) -> SplitManifest:
    """Draw the split of ``protocol`` and check it.

    Raises:
        UserError: its numbers do not fit the rows, or parts overlap that must not.
    """
    drawn = protocol.draw(selection, protocol)
    index = selection.index
    rule = f"{index.dataset}/{protocol.name} of index {index.content}: {drawn.rule}"
    manifest = dataclasses.replace(
        drawn, rule=f"{rule}; {protocol.note}" if protocol.note else rule
    )
    if protocol.overlap:
        _check_numbers(manifest, len(selection))
    else:
        manifest.check(len(selection))
    return manifest


def _check_numbers(manifest: SplitManifest, n_rows: int) -> None:
    """Refuse row numbers out of range; parts may overlap and be empty."""
    for part in ("train", "val", "query", "database"):
        rows = getattr(manifest, part)
        if len(rows) and (rows.min() < 0 or rows.max() >= n_rows):
            raise UserError(
                f"The split ({manifest.rule}) names {part} row {rows.max()} of {n_rows} rows."
            )


def _columns(index: Index, protocol: Protocol) -> np.ndarray:
    """Return the columns of the protocol's classes, in its order."""
    names = index.rows.class_names
    if protocol.classes is None or index.layout == MAT:
        return np.arange(len(names))  # a .mat file holds the protocol's columns, mostly unnamed
    column_of = {name: column for column, name in enumerate(names)}
    missing = [name for name in protocol.classes if name not in column_of]
    if missing:
        raise UserError(
            f"The split '{protocol.name}' uses the class '{missing[0]}', which the index of "
            f"{index.dataset} lacks ({len(missing)} such)."
        )
    return np.array([column_of[name] for name in protocol.classes], dtype=np.int64)


def _seen(index: Index, protocol: Protocol, names: tuple[str, ...]) -> tuple[int, ...]:
    if protocol.seen is None:
        return ()
    sets = index.rows.class_sets
    if protocol.seen not in sets:
        raise UserError(
            f"The index of {index.dataset} has no class set '{protocol.seen}' (there: "
            f"{', '.join(sets) or 'none'}); the file that states it was not there. Prepare it "
            "again."
        )
    seen = set(sets[protocol.seen])
    return tuple(column for column, name in enumerate(names) if name in seen)


def read_lists(protocol: Protocol, folders: Sequence[Path]) -> dict[str, ListedRows]:
    """Read the list files of a protocol: part → rows.

    Raises:
        UserError: one is missing, cannot be read, or has another number of labels.
    """
    assert protocol.lists is not None
    lists, read = protocol.lists, {}
    for part in ("train", "query", "database"):
        name = getattr(lists, part)
        if name is None:
            continue
        file = find_list(folders, name)
        if file is None and part == "database" and not lists.database_needed:
            continue
        if file is None:
            raise UserError(
                f"The split '{protocol.name}' needs the published list '{name}' (or '{name}.gz') "
                f"in '{folders[0]}'; put it there, or give its folder as dataset.split.lists=DIR."
            )
        read[part] = read_list(file, lists.fields.get(part, 0))
    widths = {part: rows.labels.shape[1] for part, rows in read.items()}
    if len(set(widths.values())) > 1:
        described = ", ".join(f"{part} {width}" for part, width in widths.items())
        raise UserError(f"The lists of the split '{protocol.name}' differ in labels: {described}.")
    return read


def _set_generated_aside(
    source: Source, index: Index, read: dict[str, ListedRows]
) -> ListedRows | None:
    """Take pictures of the queries' classes that the index lacks out of the training list.

    Returns the list as it was, where it had such pictures or features.
    """
    train, known = read["train"], _row_of(source, index)
    of_queries = train.labels[:, read["query"].labels.any(0)].any(1)
    absent = np.array([source.list_key(path) not in known for path in train.paths])
    generated = absent & of_queries
    read["train"] = train.take(np.flatnonzero(~generated))
    if generated.any():
        log.info(
            "'%s': %s pictures of unseen classes are no rows of %s: generated ones",
            train.file, f"{generated.sum():,}", source.name,
        )  # fmt: skip
    return train if generated.any() or train.features is not None else None


def _row_of(source: Source, index: Index) -> dict[str, int]:
    """Return list key → row of the index; the keys of ``.mat`` files are not the source's."""
    keys: Sequence[str] = index.rows.keys
    if index.layout == MAT:
        keys = [source.list_key(path) for path in index.rows.paths]
    return {key: row for row, key in enumerate(keys)}


def _index_rows(source: Source, index: Index, listed: ListedRows) -> np.ndarray:
    """Return the rows of the index that a list file names."""
    row_of = _row_of(source, index)
    keys = [source.list_key(path) for path in listed.paths]
    missing = [path for path, key in zip(listed.paths, keys, strict=True) if key not in row_of]
    if missing:
        raise UserError(
            f"'{listed.file}' names {len(missing)} of {len(listed)} pictures that the index of "
            f"{source.name} does not have, '{missing[0]}' first; the list belongs to other data."
        )
    return np.array([row_of[key] for key in keys], dtype=np.int64)


def match_columns(
    read: Mapping[str, ListedRows],
    rows: Mapping[str, np.ndarray],
    labels: np.ndarray,
    names: Sequence[str],
) -> np.ndarray:
    """Return which column of the annotations each column of the lists is, int64 [C].

    List files do not name their columns. The columns are paired so that the listed rows differ in
    as few labels as possible; equal columns keep their order.

    Raises:
        UserError: another number of columns than the index has, or a pair that agrees badly.
    """
    from scipy.optimize import linear_sum_assignment

    listed = np.concatenate([part.labels for part in read.values()]).astype(np.float32)
    annotated = labels[np.concatenate([rows[part] for part in read])].astype(np.float32)
    if listed.shape != annotated.shape:
        raise UserError(
            f"The lists have {listed.shape[1]} labels per row, but the index has "
            f"{annotated.shape[1]} classes; the lists belong to another selection of classes."
        )
    both = listed.T @ annotated
    differ = listed.sum(0)[:, None] + annotated.sum(0)[None, :] - 2 * both
    moved = 0.5 * (1 - np.eye(len(names), dtype=np.float32))  # less than one row's difference
    order = linear_sum_assignment(differ + moved / len(names))[1]
    chosen = np.arange(len(order)), order
    union = both[chosen] + differ[chosen]
    agreement = np.where(union > 0, both[chosen] / np.maximum(union, 1), 1.0)
    worst = int(agreement.argmin())
    if agreement[worst] < _LEAST_AGREEMENT:
        raise UserError(
            f"Column {worst} of the lists' labels fits no class of the index: with "
            f"'{names[order[worst]]}', the nearest, {agreement[worst]:.0%} of the rows that carry "
            "either carry both; the lists belong to other annotations."
        )
    return order.astype(np.int64)
