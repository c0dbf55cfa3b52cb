"""What is registered, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common import registry
from common.config.layers import config_file, config_names

REGISTRIES = {
    "models": registry.MODELS,
    "losses": registry.LOSSES,
    "backbones": registry.BACKBONES,
    "datasets": registry.DATASETS,
    "runners": registry.RUNNERS,
    "optimizers": registry.OPTIMIZERS,
}
FILES = {"methods": "method", "sweeps": "sweep"}


def listing(kinds: Sequence[str], plugins: Sequence[str] = ()) -> dict[str, list[dict[str, Any]]]:
    """Return kind → entries with ``name`` and ``summary`` (and for losses what they need)."""
    for plugin in plugins:
        registry.load_plugin(plugin)
    tables: dict[str, list[dict[str, Any]]] = {}
    for kind in kinds:
        if kind in FILES:
            tables[kind] = [_from_file(FILES[kind], name) for name in config_names(FILES[kind])]
            continue
        table = REGISTRIES[kind]
        tables[kind] = [_from_entry(table.get(name)) for name in table.names()]
        if kind in ("datasets", "backbones"):
            group = kind[:-1]
            extra = [n for n in config_names(group) if n not in table]
            tables[kind] += [_from_file(group, name) for name in extra]
    return tables


def _from_entry(entry: registry.Entry) -> dict[str, Any]:
    line: dict[str, Any] = {"name": entry.name, "summary": entry.summary}
    if entry.needs:
        line["needs"] = list(entry.needs)
    if entry.provides:
        line["provides"] = list(entry.provides)
    return line


def _from_file(group: str, name: str) -> dict[str, Any]:
    """The summary of a YAML file is its first comment line."""
    file = config_file(group, name)
    first = file.read_text(encoding="utf-8").split("\n", 1)[0]
    shown = file.relative_to(file.parents[2])  # configs/method/csq.yaml
    return {"name": name, "summary": first.lstrip("# ").strip(), "file": str(shown)}


def print_listing(tables: dict[str, list[dict[str, Any]]]) -> None:
    """Print the tables, one line an entry."""
    for kind, entries in tables.items():
        print(f"{kind}:")
        width = max((len(entry["name"]) for entry in entries), default=0)
        for entry in entries:
            needs = f"  (needs {', '.join(entry['needs'])})" if "needs" in entry else ""
            print(f"  {entry['name']:{width}}  {entry['summary']}{needs}")
        print()
