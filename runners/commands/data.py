"""``main.py prepare`` and ``main.py verify``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from common.config.run_config import compose
from common.registry import DATASETS
from dataset.preparation.checks import Finding, verify_dataset
from dataset.preparation.index import index_file
from dataset.preparation.prepare import prepare, splits_file
from dataset.preparation.prepared_dataset import PreparedConfig
from dataset.preparation.verify import verify_prepared
from utils.errors import UserError


def prepare_dataset(name: str, root: str | None, settings: Sequence[str], fetch: bool) -> list[str]:
    """Prepare a dataset and return lines to print; the last one is the path of its index.

    Raises:
        UserError: a dataset without official files, or whatever its preparation refuses.
    """
    if not isinstance(_config(name, None, ()), PreparedConfig):
        known = [n for n in DATASETS.names() if issubclass(DATASETS.get(n).config, PreparedConfig)]
        raise UserError(
            f"Dataset '{name}' has no official files to prepare; it is ready as it is. With "
            f"official files: {', '.join(known)}."
        )
    config = _config(name, root, settings)
    assert isinstance(config, PreparedConfig)
    if not config.root:
        raise UserError("No folder is given; say where the dataset is to lie with --root DIR.")
    source, folder = config.source, Path(config.root).expanduser()
    index = prepare(source, folder, fetch, config.lists)
    rows = index.rows
    lines = [
        f"{source.title}: {len(rows):,} rows, {len(rows.class_names)} classes, "
        f"{index.layout} layout, content {index.content}"
    ]
    manifests = json.loads(splits_file(folder, source.name).read_text(encoding="utf-8"))
    for protocol, told in manifests.items():
        if "hash" in told:
            counts = ", ".join(f"{part} {n:,}" for part, n in told["counts"].items() if n)
            lines.append(f"  {protocol:14} {told['hash']}  {counts}")
        else:
            lines.append(f"  {protocol:14} not to be had: {told['missing']}")
    return [*lines, str(splits_file(folder, source.name)), str(index_file(folder, source.name))]


def verify(name: str, root: str | None, settings: Sequence[str], quick: bool) -> list[Finding]:
    """Check a dataset and return the findings.

    Raises:
        UserError: an unknown dataset, or one that cannot even be opened.
    """
    composed = compose(_words(name, root, settings))
    config = composed.dataset.config
    if isinstance(config, PreparedConfig):
        return verify_prepared(config, quick)
    return verify_dataset(composed.dataset.entry.target(config, composed.dataset_name), quick)


def print_findings(findings: Sequence[Finding], title: str) -> None:
    """Print the findings as a table, and what differs once more below it."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in ("", "check", "found", "expected"):
        table.add_column(column, overflow="fold")
    marks = {True: "ok", False: "[bold red]differs[/]", None: ""}
    for finding in findings:
        table.add_row(marks[finding.ok], finding.check, finding.value, finding.expected)
    console = Console()
    console.print(table)
    wrong = [finding for finding in findings if finding.ok is False]
    for finding in wrong:
        console.print(
            f"differs: {finding.check}: {finding.value}, expected {finding.expected}",
            markup=False, soft_wrap=True, highlight=False,
        )  # fmt: skip
    if not wrong:
        console.print("All is as stated.")


def _words(name: str, root: str | None, settings: Sequence[str]) -> list[str]:
    words = [f"dataset={name.removeprefix('dataset=')}"]
    if root is not None:
        words.append(f"dataset.root={root}")
    return [*words, *settings]


def _config(name: str, root: str | None, settings: Sequence[str]) -> object:
    return compose(_words(name, root, settings)).dataset.config
