"""What a sweep's datasets are: prepared, with the published counts, with their pictures and texts.

Prepared datasets are read by their index, as a run reads them; of their pictures a few are looked
for. ``main.py verify`` compares the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from common.config.run_config import RunConfig
from dataset.base import HashDataset
from dataset.creatures.drawing import SIZE
from dataset.preparation.checks import Finding as Check
from dataset.preparation.index import index_file
from dataset.preparation.lists import find_list
from dataset.preparation.prepare import MAT, find_layout, missing_files
from dataset.preparation.prepared_dataset import PreparedConfig
from dataset.preparation.scan import file_size
from dataset.preparation.selection import LISTS
from dataset.preparation.verify import Examined, examine
from dataset.splits import PARTS
from runners.doctor.finding import Finding
from utils.errors import UserError
from utils.files import readable

LOOKED_AT = 64  # pictures
CREATURES = "dataset.creatures."
HASH_CHECKS = ("index content", "split hash")


@dataclasses.dataclass(frozen=True)
class Rows:
    """How many rows a dataset has, or is published to have; 0 where that is not known.

    Attributes:
        dataset: the dataset itself, where it can be opened.
        rows: in all. ``train``, ``query``, ``database``: of its split. ``texts``: captions in all.
        pixels: side of pictures that are an array of this side already, else 0.
    """

    dataset: HashDataset | None = None
    rows: int = 0
    train: int = 0
    query: int = 0
    database: int = 0
    texts: int = 0
    pixels: int = 0


def dataset_key(config: RunConfig) -> str:
    """Return what runs of one dataset and split have in common."""
    return repr((config.dataset_name, config.resolved["dataset"]))


def check_datasets(configs: Sequence[RunConfig]) -> tuple[list[Finding], dict[str, Rows]]:
    """Return what is found of every distinct dataset, and its rows by :func:`dataset_key`."""
    findings: list[Finding] = []
    known: dict[str, Rows] = {}
    for config in configs:
        key = dataset_key(config)
        if key in known:
            continue
        runs = sum(dataset_key(other) == key for other in configs)
        found, known[key] = check_dataset(config, runs)
        findings += found
    return merged(findings), known


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Return each thing once, with the runs that need it counted."""
    runs: dict[Finding, int] = {}
    for finding in findings:
        key = dataclasses.replace(finding, runs=0)
        runs[key] = runs.get(key, 0) + finding.runs
    return [dataclasses.replace(finding, runs=count) for finding, count in runs.items()]


def check_dataset(config: RunConfig, runs: int = 0) -> tuple[list[Finding], Rows]:
    """Return what is found of the dataset of a run, and its rows."""
    settings, name = config.dataset.config, config.dataset_name
    if isinstance(settings, PreparedConfig):
        return _prepared(settings, name, runs, config.data.on_bad_image == "skip")
    if config.dataset.entry.target.__module__.startswith(CREATURES):
        found = f"{settings.rows:,} pictures of {SIZE} px, drawn when first needed"
        rows = Rows(rows=settings.rows, train=settings.rows, database=settings.rows, pixels=SIZE)
        return [Finding("data", name, "ok", found, runs=runs)], rows
    try:
        dataset = config.dataset.entry.target(settings, name)
    except (UserError, OSError) as error:
        return [Finding("data", name, "missing", str(error), runs=runs)], Rows()
    found = f"{_counts(dataset.split.counts)} rows, split {dataset.split.hash}"
    return [Finding("data", name, "ok", found, runs=runs)], _rows(dataset)


def _rows(dataset: HashDataset) -> Rows:
    split, images = dataset.split, dataset.images
    array = getattr(images, "array", None)
    side = 0
    if array is not None and array.shape[1] == array.shape[2]:
        side = int(array.shape[1])
    return Rows(
        dataset, len(dataset), len(split.train), len(split.query), len(split.database),
        sum(map(len, dataset.texts or ())), side,
    )  # fmt: skip


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[part]:,} {part}" for part in PARTS if counts.get(part))


def _published(config: PreparedConfig) -> Rows:
    """Return the numbers that the protocol publishes, with those that the user has set."""
    protocol = config.protocol()
    numbers = dict(protocol.published)
    query, train = numbers.get("query", 0), numbers.get("train", 0)
    rows = numbers.get("rows", query + train)
    database = numbers.get("database", rows - query)
    return Rows(None, rows, train, query, database, rows)


def _prepared(
    config: PreparedConfig, name: str, runs: int, skip: bool
) -> tuple[list[Finding], Rows]:
    """Look at a dataset of ``main.py prepare``."""
    source, protocol = config.source, config.protocol()
    root = Path(config.root or f"data/{source.name}").expanduser()
    title, findings = f"{name}, split {protocol.name}", []
    if (lists := _lists(config, root, runs)) is not None:
        findings.append(lists)
    if not index_file(root, source.name).is_file():
        return [_not_prepared(config, root, runs), *findings], _published(config)
    command = f"python main.py prepare {source.name} --root {root}"
    try:
        checks, examined = examine(config)
    except UserError as error:
        unreadable = Finding("data", title, "differs", str(error), command, runs)
        return [unreadable, *findings], _published(config)
    wrong = [check for check in checks if check.ok is False]
    split = [check for check in wrong if check.check == "split"]
    findings += [
        Finding("data", title, "differs", check.value, command, runs)
        for check in split
        if lists is None
    ]
    others = [check for check in wrong if check.check != "split"] if not split else []
    if others:
        get = f"{command}; python main.py verify {source.name} --root {root} says what differs"
        found = "prepared with " + "; ".join(map(_difference, others))
        findings.append(Finding("data", title, "differs", found, get, runs))
    if examined is None:
        return findings, _published(config)
    pictures = _pictures(examined, name, root, runs)
    if pictures is not None:
        findings.append(dataclasses.replace(pictures, state="warning") if skip else pictures)
    if not findings:
        split_of = examined.dataset.split
        found = f"{_counts(split_of.counts)} rows, as published; split {split_of.hash}"
        findings = [Finding("data", title, "ok", found, runs=runs)]
    return findings, _rows(examined.dataset)


def _difference(check: Check) -> str:
    """Return a difference with both numbers."""
    words = "recorded" if check.check in HASH_CHECKS else "published"
    return f"{check.check} {check.value}, {words} {check.expected}"


def _not_prepared(config: PreparedConfig, root: Path, runs: int) -> Finding:
    """Return the line of a dataset without an index: what to fetch and what to type."""
    source = config.source
    command = f"python main.py prepare {source.name} --root {root}"
    absent = [] if find_layout(source, root) == MAT else missing_files(source, root)
    if not absent:
        found = f"its files are in {root}, but not indexed yet"
        return Finding("data", source.name, "missing", found, command, runs)
    names = ", ".join(f.name + (f" ({readable(f.size)})" if f.size else "") for f in absent)
    found = f"not prepared in {root}; {names} not there"
    by_hand = [file for file in absent if file.url is None]
    if len(by_hand) < len(absent):
        command += " --download"
    if by_hand:
        pages = " and ".join(dict.fromkeys(file.page or "its publisher" for file in by_hand))
        files = ", ".join(file.name for file in by_hand)
        command = f"put {files} from {pages} in {root}, then: {command}"
    return Finding("data", source.name, "missing", found, command, runs)


def _lists(config: PreparedConfig, root: Path, runs: int) -> Finding | None:
    """Return the published lists of the protocol that are not there."""
    lists = config.protocol().lists
    if lists is None:
        return None
    folders = [config.lists] if config.lists is not None else [root / LISTS, root]
    names = [lists.train, lists.query]
    if lists.database is not None and lists.database_needed:
        names.append(lists.database)
    absent = [name for name in names if find_list(folders, name) is None]
    if not absent:
        return None
    title = f"{config.source.name}, lists of split {config.protocol().name}"
    found = f"{', '.join(absent)} not in {' or '.join(map(str, folders))}"
    get = f"put {', '.join(absent)} ({config.protocol().papers}) in {folders[0]}"
    return Finding("data", title, "missing", found, get, runs)


def _pictures(examined: Examined, name: str, root: Path, runs: int) -> Finding | None:
    """Return that pictures were missing when the index was made, or are now; None: all well."""
    rows, images = examined.selection.rows, examined.dataset.images
    absent = int((examined.index.image_bytes[rows] < 0).sum())
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(LOOKED_AT, len(rows))).astype(int))
    gone = [int(row) for row in chosen if file_size(images, int(row)) == -1]
    get = f"put the pictures below {root}; data.on_bad_image=skip leaves such rows out"
    title = f"{name}, pictures"
    if absent:
        found = f"{absent:,} of {len(rows):,} were not there when it was prepared"
        return Finding("data", title, "missing", found, get, runs)
    if gone:
        found = f"{len(gone)} of {len(chosen)} looked for are gone, {images.name(gone[0])} first"
        return Finding("data", title, "missing", found, get, runs)
    return None
