"""What is known of every method: its file, configurations, options and recorded numbers."""

from __future__ import annotations

import ast
import csv
import dataclasses
import fnmatch
import functools
import inspect
import itertools
import re
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from common import registry
from common.config.layers import config_file, config_names, read_layer
from docs.generate.docstrings import attributes
from tests.golden import harness

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
MISSING = object()  # no default: the key has to be given


@dataclasses.dataclass(frozen=True)
class Config:
    """A file of ``configs/method/``: its text, its summary and the commands in its comments."""

    name: str
    text: str
    summary: str
    commands: tuple[str, ...]
    sections: dict[str, str]
    """``model``, ``loss`` and ``runner`` → name of the component; a section may be missing."""


@dataclasses.dataclass(frozen=True)
class Method:
    """A file of ``models/`` that configurations use as a method, and what docs/methods.yaml says.

    Attributes:
        stem: name of the file, without ``.py``.
        label: name in tables, with a word on what it covers.
        name: short name, as publications write it.
        also: further names of its variants in publications.
        venue: where it was published; empty if it was not.
        task: ``cross-modal``, ``image`` …
        configs: the configurations that use it.
        recorded: patterns of names of recorded cases.
    """

    stem: str
    label: str
    name: str
    venue: str
    task: str
    configs: tuple[Config, ...]
    recorded: tuple[str, ...]
    also: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """Return the method's file, in the folder of its family."""
        return next((ROOT / "models").glob(f"*/{self.stem}.py"))

    @property
    def path(self) -> str:
        """Return the name of the file as documents give it."""
        return self.file.relative_to(ROOT).as_posix()


@dataclasses.dataclass(frozen=True)
class Option:
    """A key that a component accepts."""

    key: str
    accepted: str
    default: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A recorded case: outputs that are compared, and those that are not, with the reason."""

    case: str
    compares: str
    outputs: int
    left_out: dict[str, str]


@functools.cache
def notes() -> dict[str, Any]:
    """Return ``docs/methods.yaml``."""
    with open(DOCS / "methods.yaml", encoding="utf-8") as stream:
        read: dict[str, Any] = yaml.safe_load(stream)
    return read


@functools.cache
def methods() -> tuple[Method, ...]:
    """Return all methods, in the order of docs/methods.yaml.

    Raises:
        KeyError: a configuration uses a file that docs/methods.yaml does not name, or none uses one
            that it names.
    """
    by_file: dict[str, list[Config]] = {}
    for name in config_names("method"):
        config = _config(name)
        by_file.setdefault(_stem(config), []).append(config)
    listed: dict[str, dict[str, Any]] = notes()["methods"]
    strange = sorted(set(by_file) ^ set(listed))
    if strange:
        raise KeyError(
            f"docs/methods.yaml and configs/method/ differ about {', '.join(strange)}: every file "
            "of models/ that a configuration uses as a method needs an entry, and no other"
        )
    return tuple(
        Method(
            stem, entry["label"], entry["name"],
            entry.get("venue", ""), entry["task"], tuple(by_file[stem]),
            tuple(entry.get("recorded", ())), tuple(entry.get("also", ())),
        )
        for stem, entry in listed.items()
    )  # fmt: skip


def _config(name: str) -> Config:
    file = config_file("method", name)
    text = file.read_text(encoding="utf-8")
    comments = [line for line in text.split("\n") if line.startswith("#")]
    values = read_layer(file).values
    sections = {}
    for section in ("model", "loss", "runner"):
        value = values.get(section)
        chosen = value.get("name") if isinstance(value, dict) else value
        if chosen not in (None, "none"):
            sections[section] = str(chosen)
    commands = tuple(re.findall(r"^#\s+(python main\.py .*)$", text, flags=re.MULTILINE))
    return Config(name, text, comments[0].lstrip("# "), commands, sections)


def _stem(config: Config) -> str:
    """A method's file is that of its loss, or of its model where it has no loss."""
    if "loss" in config.sections:
        return Path(registry.LOSSES.get(config.sections["loss"]).file).stem
    return Path(registry.MODELS.get(config.sections["model"]).file).stem


def components(method: Method) -> list[tuple[str, registry.Entry]]:
    """Return (section, component) of all configurations of a method, each once."""
    tables = {"model": registry.MODELS, "loss": registry.LOSSES, "runner": registry.RUNNERS}
    found = {}
    for section, table in tables.items():
        for config in method.configs:
            if section in config.sections:
                name = config.sections[section]
                found[section, name] = table.get(name)
    return [(section, entry) for (section, _), entry in found.items()]


def options(schema: type, prefix: str = "", instance: Any = MISSING) -> Iterator[Option]:
    """Yield the keys of a dataclass, those of nested ones with dotted names.

    Meanings are the comments behind the fields, or what the docstring says under ``Attributes``.
    """
    hints, meanings = typing.get_type_hints(schema), _meanings(schema)
    for field in dataclasses.fields(schema):
        if field.metadata.get("ignored"):  # accepted without effect, see runners/fit.py
            continue
        default = getattr(instance, field.name, _default(field))
        hint, key = hints[field.name], f"{prefix}{field.name}"
        choices = typing.get_args(hint) or (hint,)
        nested = [kind for kind in choices if dataclasses.is_dataclass(kind)]
        if not nested:
            yield Option(key, _accepted(hint), _shown(default), meanings[field.name])
        elif words := [_accepted(kind) for kind in choices if kind not in nested]:
            accepted = " or ".join([*words, "keys as below"])
            yield Option(key, accepted, "", meanings[field.name])
        for kind in nested:
            yield from options(kind, f"{key}.", default)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    factory = field.default_factory
    return MISSING if factory is dataclasses.MISSING else factory()


def _meanings(schema: type) -> dict[str, str]:
    """Return field → the comment on its line or above it, or else the docstring's words for it."""
    found: dict[str, str] = {field.name: "" for field in dataclasses.fields(schema)}
    for base in reversed(schema.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        told = attributes(inspect.cleandoc(base.__doc__ or ""))
        lines = Path(registry._source_file(base)).read_text(encoding="utf-8").split("\n")
        for node in _class_body(base):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                line = lines[(node.end_lineno or node.lineno) - 1][node.end_col_offset or 0 :]
                _, hash_sign, comment = line.partition("#")
                if hash_sign and not comment.strip().startswith(("type:", "noqa", "fmt:")):
                    found[node.target.id] = comment.strip()
                else:
                    above = _comment_above(lines[: node.lineno - 1])
                    found[node.target.id] = above or told.get(node.target.id, "")
    return found


def _comment_above(lines: Sequence[str]) -> str:
    """Return the comment that the lines end with, or nothing."""
    ending = itertools.takewhile(lambda line: line.strip().startswith("#"), reversed(lines))
    return " ".join(line.strip().lstrip("# ") for line in reversed(list(ending)))


def _class_body(schema: type) -> Sequence[ast.stmt]:
    tree = _tree(registry._source_file(schema))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == schema.__name__:
            return node.body
    return ()


@functools.cache
def _tree(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text(encoding="utf-8"))


def _accepted(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return ", ".join(f"`{option}`" for option in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_accepted(option) for option in inner)
    if origin in (list, tuple):
        return f"list of {_accepted(inner[0])}" if inner else "list"
    names = {int: "int", float: "float", str: "text", bool: "true, false", type(None): "`null`"}
    return names.get(hint) or ("mapping" if hint is dict or origin is dict else str(hint))


def _shown(value: Any) -> str:
    if value is MISSING:
        return "to be given"
    if value is None:
        return "`null`"
    if value == "":
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (list, tuple)):
        return f"`[{', '.join(str(item) for item in value)}]`"
    return f"`{value}`"


def recorded(method: Method) -> list[Recorded]:
    """Return the recorded cases of a method: single functions first, training runs last."""
    adapters = harness.load_adapters()
    found = []
    for file in harness.find_files(harness.NUMBERS):
        case = harness.case_name(file)
        if not any(fnmatch.fnmatchcase(case, pattern) for pattern in method.recorded):
            continue
        with np.load(file, allow_pickle=False) as archive:
            outputs = [key for key in archive.files if key.startswith("out_")]
        adapter = adapters[case]
        reasons = {
            pattern: reason
            for pattern, reason in adapter.not_compared.items()
            if fnmatch.filter(outputs, pattern)
        }
        compared = harness.left_out(outputs, reasons)
        first = (adapter.function.__doc__ or "").strip().split("\n")[0]
        found.append(Recorded(case, first, len(compared), reasons))
    return sorted(found, key=lambda one: (one.case.startswith("traj_"), one.case))


def published(method: Method) -> list[dict[str, str]]:
    """Return the rows of docs/published.csv about a method."""
    names = {method.name, *method.also}
    return [row for row in all_published() if row["method"] in names]


@functools.cache
def all_published() -> tuple[dict[str, str], ...]:
    """Return docs/published.csv."""
    with open(DOCS / "published.csv", newline="", encoding="utf-8") as stream:
        return tuple(csv.DictReader(stream))
