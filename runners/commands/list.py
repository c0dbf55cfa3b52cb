"""``main.py list``: what is registered, as tables."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import registry
from common.config import layers
from utils.errors import UserError
from utils.terminal import say
from utils.yaml_file import read_yaml

KINDS = ("methods", "models", "losses", "backbones", "datasets", "runners", "optimizers", "sweeps")
FILES = ("methods", "sweeps")  # kinds that are YAML files alone
GROUPS = {kind: kind[:-1] for kind in (*FILES, "datasets", "backbones")}  # folders of YAML
PATHS = {"dataset": ("root",), "backbone": ("model", "weights")}  # keys that may hold a path

Tables = dict[str, list[dict[str, Any]]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``list``."""
    parser.add_argument("kind", nargs="?", choices=KINDS, help="all kinds when left out")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE.py")


def run(options: argparse.Namespace) -> None:
    """Print the registered names that can be used here, with a line on each."""
    tables = usable(listing([options.kind] if options.kind else KINDS, options.plugin))
    if options.json:
        say(*json.dumps(tables, indent=2).split("\n"))
        return
    for kind, entries in tables.items():
        say(f"{kind}:")
        width = max((len(entry["name"]) for entry in entries), default=0)
        for entry in entries:
            needs = f"  (needs {', '.join(entry['needs'])})" if "needs" in entry else ""
            say(f"  {entry['name']:{width}}  {entry['summary']}{needs}")
        say("")


def listing(kinds: Sequence[str], plugins: Sequence[str] = ()) -> Tables:
    """Return kind → entries with ``name`` and ``summary`` (and for losses what they need)."""
    for plugin in plugins:
        registry.load_plugin(plugin)
    tables: Tables = {}
    for kind in kinds:
        table: Any = None if kind in FILES else getattr(registry, kind.upper())
        registered = table.names() if table else []
        tables[kind] = [_from_entry(table.get(name)) for name in registered]
        if kind in GROUPS:
            files = [name for name in layers.config_names(GROUPS[kind]) if name not in registered]
            tables[kind] += [_from_file(GROUPS[kind], name) for name in files]
    return tables


def _from_entry(entry: Any) -> dict[str, Any]:
    line: dict[str, Any] = {"name": entry.name, "summary": entry.summary}
    if entry.needs:
        line["needs"] = list(entry.needs)
    if entry.provides:
        line["provides"] = list(entry.provides)
    return line


def _from_file(group: str, name: str) -> dict[str, Any]:
    """The summary of a YAML file is its first comment line."""
    file = layers.config_file(group, name)
    first = file.read_text(encoding="utf-8").split("\n", 1)[0]
    shown = file.relative_to(file.parents[2])  # configs/method/csq.yaml
    return {"name": name, "summary": first.lstrip("# ").strip(), "file": str(shown)}


def usable(tables: Tables) -> Tables:
    """Leave out datasets, backbones and sweeps whose YAML needs files that are not here."""
    return {
        kind: [
            entry
            for entry in entries
            if kind == "methods" or "file" not in entry or is_usable(GROUPS[kind], entry["name"])
        ]
        for kind, entries in tables.items()
    }


def is_usable(group: str, name: str) -> bool:
    """Return whether what a YAML points to outside of the project exists.

    Paths inside of the project may be filled later, by ``prepare``. A sweep is usable if all
    datasets and backbones that it names are.
    """
    try:
        values = read_yaml(layers.config_file(group, name))
    except UserError:
        return True  # a registered name, or a faulty file: the command that reads it reports that
    if group == "sweep":
        return all(is_usable(*choice) for choice in _choices(values))
    section = values.get(group) if isinstance(values, Mapping) else None
    paths = [section.get(key) for key in PATHS[group]] if isinstance(section, Mapping) else []
    return not any(_is_missing(layers.CONFIGS.parent, path) for path in paths)


def _is_missing(project: Path, path: object) -> bool:
    """Return whether a path leads out of the project to nothing."""
    if not isinstance(path, str):
        return False
    target = os.path.normpath(project / os.path.expanduser(path))
    return not Path(target).is_relative_to(project) and not os.path.exists(target)


def _choices(values: Any) -> Iterator[tuple[str, str]]:
    """Yield the datasets and backbones that the values of a sweep name, as (group, name)."""
    if isinstance(values, list):
        for value in values:
            yield from _choices(value)
    elif isinstance(values, Mapping):
        for key, value in values.items():
            if key in PATHS:
                names = value if isinstance(value, list) else [value]
                yield from ((key, name) for name in names if isinstance(name, str))
            else:
                yield from _choices(value)
