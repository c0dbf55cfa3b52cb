"""Layers of settings: reading them from YAML files and from the command line, and merging them.

Layers, later ones win: ``configs/base.yaml`` < dataset < backbone < method < ``--config FILE`` <
command line. ``method``, ``dataset`` and ``backbone`` take the name of a file below ``configs/`` or
a path, the latter two also a registered name that has no file; ``dataset.root=…`` then overrides a
key of what was chosen. The backbone is the user's choice, else the one that the dataset's file
names, else the method's; keys that a file gives beside its choice hold for that choice alone.
When a layer gives a section another ``name`` (``loss.name=dsph``), the keys that belonged to the
previous one are dropped. ``plugins`` of all layers add up.

A complete layer, such as ``config.yaml`` of a run folder, needs none of the files that it names:
moving, changing or deleting a method's YAML does not change existing runs.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import io
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from common import registry
from common.config.former_keys import present_image_keys
from common.config.plugins import PluginLoader, Received
from utils.errors import UserError, unknown_name
from utils.files import check_plain_file
from utils.shown import brief, first_line, shown
from utils.yaml_file import DEEPEST, check_yaml, read_yaml_text

log = logging.getLogger("hashing")
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PLACEHOLDER = "${"
"""How OmegaConf's interpolations begin. They are refused: a run's settings are what is written."""
_SELECTED = ("dataset", "backbone", "method")  # sections whose files the user chooses by name
_NAMED = ("dataset", "backbone", "model", "loss", "optim", "schedule", "runner")
"""Sections of a registered component: its ``name`` and its keys."""
_RECIPE = ("model", "loss", "optim", "schedule", "runner")
"""Sections of a method."""
_REGISTERED = {"dataset": registry.DATASETS, "backbone": registry.BACKBONES}
"""Sections that may be chosen by a registered name that has no file."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One source of settings: a YAML file, or the command line."""

    source: str
    values: Mapping[str, Any]
    file: Path | None = None
    from_received: bool = False  # a received layer chose it

    @property
    def is_received(self) -> bool:
        """Whether it is, or may be, of a run folder, so that its plugins are not the user's."""
        in_run_folder = self.file is not None and self.file.name == "config.yaml"
        return self.from_received or in_run_folder or self.is_complete

    @property
    def is_complete(self) -> bool:
        """Whether it sets everything that a run needs, so that no file has to be read."""
        named = [self.values.get(key) for key in _NAMED if key not in ("optim", "schedule")]
        return {"method", "bits", "seed", "data", "eval", *_NAMED} <= set(self.values) and all(
            isinstance(section, Mapping) and "name" in section for section in named
        )


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Return ``["a.b=1", "c=[x]"]`` as nested dicts; values are read as YAML."""
    nested: dict[str, Any] = {}
    for word in words:
        if re.search(r"[\x00-\x1f\x7f]", word):  # YAML would fold a line's end into a space
            raise UserError(f"command line: '{shown(word, 200)}' holds a control character.")
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise UserError(
                f"'{word}' is not understood: settings are given as key=value, for example bits=32."
            )
        if PLACEHOLDER in word:
            raise _placeholder("command line", key if PLACEHOLDER not in key else word)
        check_yaml(text, f"command line: the value of '{key[:40]}'")
        if key.count(".") > DEEPEST:
            raise UserError(f"'{key[:40]}…' names a key deeper than {DEEPEST}; no setting is.")
        try:
            parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))
        except (OmegaConfBaseException, yaml.YAMLError, ValueError, RecursionError) as error:
            raise UserError(
                f"command line: the value of '{key}' is no valid YAML: {brief(text)}."
            ) from error
        _set_path(nested, key.split("."), parsed["value"])  # type: ignore[index, call-overload]
    return nested


def read_layer(path: Path) -> Layer:
    """Read one YAML file of settings.

    Raises:
        UserError: no such file, invalid YAML (with line), or no mapping in it.
    """
    check_plain_file(path)
    if not path.is_file():
        raise UserError(f"Config file '{path}' does not exist.")
    stat = path.stat()
    values = _read_layer(path, (stat.st_mtime_ns, stat.st_size))
    return Layer(str(path), copy.deepcopy(values), path)


@functools.lru_cache(maxsize=256)  # the runs of a sweep share a few files
def _read_layer(path: Path, _version: tuple[int, int]) -> dict[str, Any]:
    text = read_yaml_text(path)
    try:
        values = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))
    except GrammarParseError as error:
        raise _placeholder(str(path), str(error.full_key)) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(
            f"{path}{line}: not valid YAML ({getattr(error, 'problem', error)})."
        ) from error
    except RecursionError as error:
        raise UserError(f"{path}: cannot be read as YAML (nested too deeply).") from error
    except (OmegaConfBaseException, ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({first_line(error)}).") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: settings are needed as 'key: value' lines.")
    for key in _with_placeholders(values):
        raise _placeholder(str(path), key)
    return {str(key): value for key, value in values.items()}


def _with_placeholders(node: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted keys whose key or value has a placeholder in it."""
    if isinstance(node, str) and PLACEHOLDER in node:
        yield path
    entries = node.items() if isinstance(node, Mapping) else []
    if isinstance(node, list):
        entries = list(enumerate(node))
    for key, value in entries:
        inner = f"{path}.{key}" if path else str(key)
        if PLACEHOLDER in str(key):
            yield inner
        yield from _with_placeholders(value, inner)


def _placeholder(source: str, key: str) -> UserError:
    """Return the sentence for ``${...}``: settings would differ from one machine to another."""
    return UserError(
        f"{source}: '{key}' holds a placeholder, {PLACEHOLDER}...}}, and none is replaced, neither "
        "by the environment nor by other keys; write the value itself."
    )


def config_names(group: str) -> list[str]:
    """Return the names of the YAML files in ``configs/<group>``, as ``papers/mith`` below it."""
    folder = CONFIGS / group
    return sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.yaml"))


def config_file(group: str, name: str) -> Path:
    """Return the file that ``name`` (a name or a path) means in ``configs/<group>``.

    Raises:
        UserError: unknown; lists the known names and the nearest.
    """
    if name.endswith((".yaml", ".yml")):
        return Path(name).expanduser()
    path = CONFIGS / group / f"{name}.yaml"
    if not path.is_file():
        raise unknown_name(group, name, config_names(group))
    return path


def short_name(name: str) -> str:
    """Return the name of a method, dataset or backbone in results: of a YAML's path, the stem.

    >>> short_name("mine/shapes.yaml"), short_name("flickr8k")
    ('shapes', 'flickr8k')
    """
    path = Path(name)
    return path.stem if path.suffix in (".yaml", ".yml") else path.name


def with_selected_files(top: Sequence[Layer], received: Received = "refuse") -> list[Layer]:
    """Return all layers in order: base, the files that the user chose by name, then ``top``.

    Every layer's plugins are loaded before a choice, for a plugin may register the chosen dataset;
    ``received`` is for those of run folders (:mod:`common.config.plugins`).

    Raises:
        UserError: nothing is chosen for a section, an unknown name, or plugins that do not load.
    """
    plugins = PluginLoader(received)
    base, *top = map(with_present_keys, (read_layer(CONFIGS / "base.yaml"), *top))
    typed = [None if layer.is_received else _with_plugins(layer, plugins) for layer in top]
    top = [done or _with_plugins(layer, plugins) for done, layer in zip(typed, top, strict=True)]
    names: dict[str, str | None] = {}
    chosen: dict[str, Layer] = {}
    for group in ("method", "dataset", "backbone"):
        # the method has an encoder, a dataset may have another; the user's choice wins
        files = [chosen["method"], chosen["dataset"]] if group == "backbone" else []
        names[group], chosen[group] = _choose(group, [base, *files, *top], plugins)
    other_names = {group: {g: names[g] for g in names if g != group} for group in _SELECTED}
    return [
        _without_choices(base, names),
        *(_without_choices(chosen[group], other_names[group]) for group in _SELECTED),
        *(_without_choices(layer, names) for layer in top),
    ]


def _choose(
    group: str, sources: Sequence[Layer], plugins: PluginLoader
) -> tuple[str | None, Layer]:
    """Return the name in the last layer that has one for ``group``, and the layer of that name."""
    for layer in reversed(sources):
        name = _selected(layer, group)
        if layer.is_complete:
            return name, Layer(layer.source, {})
        if name is not None:
            return name, _layer_of(group, name, plugins, layer.is_received)
    sections = [layer.values.get(group) for layer in sources]
    if any(isinstance(section, Mapping) and "name" in section for section in sections):
        return None, Layer("", {})  # a component is named, without a file
    known = ", ".join(config_names(group))
    if group != "backbone":
        raise UserError(f"No {group} is chosen; give {group}=NAME, one of: {known}.")
    files = " nor ".join(f"'{layer.source}'" for layer in sources if layer.file)
    raise UserError(
        f"No encoder is chosen, for neither {files} names one; give backbone=NAME, one of: {known} "
        "('pixels' needs no weights), or write 'backbone: NAME' into the method's file."
    )


def _layer_of(group: str, name: str, plugins: PluginLoader, from_received: bool) -> Layer:
    known = set(config_names(group))
    if group in _REGISTERED and not name.endswith((".yaml", ".yml")) and name not in known:
        if name not in _REGISTERED[group]:
            raise unknown_name(group, name, known.union(_REGISTERED[group].names()))
        return Layer(f"{group}={name}", {group: {"config": name, "name": name}})
    layer = dataclasses.replace(read_layer(config_file(group, name)), from_received=from_received)
    layer = _with_plugins(with_present_keys(layer), plugins)
    section = layer.values.get(group)
    if group == "method":
        section = short_name(name)
    else:
        section = {"name": section} if isinstance(section, str) else section
        section = {"config": name, **(section if isinstance(section, dict) else {})}
    values = {**layer.values, group: section}
    encoder = values.get("backbone")
    if group != "backbone" and isinstance(encoder, Mapping) and "name" in encoder:
        values["backbone"] = {
            "config": encoder["name"],
            **encoder,
        }  # a choice, as by its name alone
    return dataclasses.replace(layer, values=values)


def with_present_keys(layer: Layer) -> Layer:
    """Return the layer of a run folder with former keys translated; refuse them elsewhere."""
    data = layer.values.get("data")
    if not isinstance(data, Mapping):
        return layer
    if layer.is_complete and data.get("augment") == "crop_flip":
        log.warning(
            "%s: training pictures were shifted (data.augment=crop_flip), which is no longer done; "
            "the run can be evaluated and searched, but trained again it differs", layer.source,
        )  # fmt: skip
    present = present_image_keys(data, None if layer.is_complete else layer.source)
    return dataclasses.replace(layer, values={**layer.values, "data": present})


def _selected(layer: Layer, group: str) -> str | None:
    value = layer.values.get(group)
    if isinstance(value, Mapping):
        value = value.get("config")
    if value is not None and not isinstance(value, str):
        raise UserError(
            f"{layer.source}: {group}={brief(value)} is not accepted; a name is needed."
        )
    return value


def _with_plugins(layer: Layer, plugins: PluginLoader) -> Layer:
    return dataclasses.replace(layer, values={**layer.values, "plugins": plugins.load(layer)})


def _without_choices(layer: Layer, names: Mapping[str, str | None]) -> Layer:
    """Return a layer without its choices of files, and without keys that belong to other choices.

    ``dataset: flickr8k`` chose a file, which is a layer by now; ``loss: csq`` names a loss.
    """
    values = dict(layer.values)
    for key, value in values.items():
        if isinstance(value, str) and key in _SELECTED:
            values[key] = short_name(value) if key == "method" else {}
        elif isinstance(value, str) and key in _NAMED:
            values[key] = {"name": value}
        elif key in names and isinstance(value, Mapping) and "config" in value:
            section = value if value["config"] in (None, names[key]) else {}
            values[key] = {k: v for k, v in section.items() if k != "config" or layer.is_complete}
    if layer.is_complete and "method" in names and layer.values["method"] != names["method"]:
        values = {key: value for key, value in values.items() if key not in _RECIPE}
    return dataclasses.replace(layer, values=values)


def merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Merge ``values`` over ``into``; a section with another ``name`` replaces the previous one."""
    for key, value in values.items():
        present = into.get(key)
        if key == "plugins":
            into[key] = [*(present or [])]
            into[key] += [entry for entry in value if entry not in into[key]]
            continue
        if not isinstance(value, Mapping):
            into[key] = value
            continue
        into[key] = present if isinstance(present, dict) else {}
        name = value.get("name")
        if key in _NAMED and name is not None and into[key].get("name", name) != name:
            # another component does not have the keys of the previous one
            shared = ("lr", "groups") if key == "optim" else ()
            into[key] = {k: v for k, v in into[key].items() if k in shared}
        merge_section(into[key], value)


def merge_section(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Merge ``values`` over ``into`` at every depth."""
    for key, value in values.items():
        if not isinstance(value, Mapping):
            into[key] = value
            continue
        if not isinstance(into.get(key), dict):
            # a component that was a name alone, as in `split: mith`, gets further keys
            into[key] = {"name": into[key]} if isinstance(into.get(key), str) else {}
        merge_section(into[key], value)


def _set_path(nested: dict[str, Any], keys: list[str], value: Any) -> None:
    for depth, key in enumerate(keys[:-1]):
        inner = nested.get(key)
        if isinstance(inner, str):  # dataset=x dataset.root=y, dataset.split=x dataset.split.seed=1
            inner = {"config" if depth == 0 and key in _SELECTED else "name": inner}
        nested[key] = inner if isinstance(inner, dict) else {}
        nested = nested[key]
    last = keys[-1]
    if isinstance(nested.get(last), dict) and isinstance(value, str):
        nested[last]["config" if last in _SELECTED else "name"] = value  # dataset.root=y dataset=x
    else:
        nested[last] = value


def locate(layers: Sequence[Layer], path: str) -> str:
    """Return the source of the layer that set ``path`` last, with the line if it is a file."""
    keys = path.split("[")[0].split(".")
    for layer in reversed(layers):
        value: Any = layer.values
        for key in keys:
            value = value.get(key, _ABSENT) if isinstance(value, Mapping) else _ABSENT
        if value is not _ABSENT:
            line = _line_of(layer.file, keys) if layer.file else None
            return f"{layer.source}:{line}" if line else layer.source
    return "defaults"


_ABSENT = object()


def _line_of(file: Path, keys: list[str]) -> int | None:
    node = yaml.compose(read_yaml_text(file))
    line = None
    for key in keys:
        entries = node.value if isinstance(node, yaml.MappingNode) else []
        entry = next((entry for entry in entries if entry[0].value == key), None)
        if entry is None:
            break
        line, node = entry[0].start_mark.line + 1, entry[1]
    return line
