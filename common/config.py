"""One run's configuration: composed from YAML layers, checked strictly, named by its hash.

Layers, later ones win: ``configs/base.yaml`` < dataset < backbone < method < ``--config FILE`` <
command line. ``method``, ``dataset`` and ``backbone`` take the name of a file below ``configs/`` or
a path; ``dataset.root=…`` then overrides a key of what was chosen. When a layer gives a section
another ``name`` (``loss.name=dsph``), the keys that belonged to the previous one are dropped.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from common import registry, schema
from utils.errors import UserError, unknown_name
from utils.files import digest, file_digest

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SELECTED = ("dataset", "backbone", "method")  # sections whose files the user chooses by name
COMPONENTS = {
    "dataset": registry.DATASETS,
    "backbone": registry.BACKBONES,
    "model": registry.MODELS,
    "loss": registry.LOSSES,
    "optim": registry.OPTIMIZERS,
    "schedule": registry.SCHEDULERS,
    "runner": registry.RUNNERS,
}
NOT_IDENTITY = ("output", "plugins", "data.workers", "runner.threads", "runner.device")
"""Keys that change where or how fast a run happens, not what comes out; left out of its hash."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Section ``data``: how rows reach the model."""

    augment: Literal["none", "flip", "crop_flip", "resized_crop_flip"] = "none"
    train_geometry: Literal["squash", "crop"] = "squash"  # crop: short side, then centre crop
    eval_geometry: Literal["squash", "crop"] = "squash"
    captions: Literal["random", "first"] = "random"  # drawn at each training access, or fixed
    on_bad_image: Literal["error", "skip"] = "error"
    feature_cache: Literal["auto", "off"] = "auto"  # auto: whenever the encoder is frozen
    workers: int = 0
    eval_batch_size: int = 256


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Section ``eval``: what is measured, and on what the epoch is selected."""

    select: Literal["val", "query", "last"] = "val"
    val_size: int | float = 0.1  # rows, or a fraction of the training rows, when select=val
    every: int = 1  # epochs between evaluations while training
    directions: list[Literal["i2i", "i2t", "t2i", "t2t"]] | None = None  # None: by modalities
    at: list[int | str] = dataclasses.field(default_factory=lambda: ["all"])
    no_relevant: Literal["zero", "skip"] = "zero"


@dataclasses.dataclass(frozen=True)
class Component:
    """A registered thing chosen by name, with its checked settings."""

    entry: registry.Entry
    config: Any

    @property
    def name(self) -> str:
        """The registered name."""
        return self.entry.name


@dataclasses.dataclass(frozen=True)
class OptimGroup:
    """Settings of one parameter group: its optimiser, base learning rate and schedule."""

    optimizer: Component
    lr: float
    schedule: Component


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A checked configuration.

    Attributes:
        optim: group name → settings, for every group that model and loss declare.
        resolved: the whole as plain dicts and lists, complete with defaults; what ``config.yaml``
            holds and what reproduces the run.
    """

    method: str
    bits: int
    seed: int
    output: str
    dataset_name: str
    dataset: Component
    backbone: Component
    model: Component
    loss: Component | None
    optim: Mapping[str, OptimGroup]
    runner: Component
    data: DataConfig
    eval: EvalConfig
    resolved: Mapping[str, Any]

    @property
    def hash(self) -> str:
        """First 8 hex digits of the hash of everything that decides the result."""
        identity = {k: v for k, v in _flat(self.resolved).items() if k not in NOT_IDENTITY}
        plugins = [file_digest(Path(path)) for path in self.resolved["plugins"]]
        return digest(repr(sorted(identity.items())), *plugins)[:8]

    @property
    def run_name(self) -> str:
        """Folder name of the run: ``<dataset>-<method>-<bits>bit-s<seed>-<hash>``."""
        return f"{self.dataset_name}-{self.method}-{self.bits}bit-s{self.seed}-{self.hash}"


@dataclasses.dataclass(frozen=True)
class Layer:
    """One source of settings: a YAML file, or the command line."""

    source: str
    values: Mapping[str, Any]
    file: Path | None = None


def compose(overrides: Sequence[str] = (), file: str | Path | None = None) -> RunConfig:
    """Return the checked configuration for ``key=value`` words and a ``--config`` file.

    Raises:
        UserError: an unknown name or key, a mistyped value, a missing file, a model and a loss that
            do not fit; the sentence says where and what is accepted.
    """
    top = [Layer("command line", parse_overrides(overrides))]
    if file is not None:
        top.insert(0, read_layer(Path(file)))
    return compose_layers(top)


def compose_layers(top: Sequence[Layer]) -> RunConfig:
    """Return the checked configuration for ``top`` layers over the project's own YAML files."""
    layers = _with_selected_files(top)
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge(merged, layer.values)
    for plugin in _plugins(merged):
        registry.load_plugin(plugin)
    return _check(merged, layers)


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Return ``["a.b=1", "c=[x]"]`` as nested dicts; values are read as YAML."""
    nested: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise UserError(
                f"'{word}' is not understood: settings are given as key=value, for example bits=32."
            )
        try:
            parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=True)
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise UserError(
                f"command line: the value of '{key}' is no valid YAML: {text}."
            ) from error
        _set_path(nested, key.split("."), parsed["value"])  # type: ignore[index, call-overload]
    return nested


def read_layer(path: Path) -> Layer:
    """Read one YAML file of settings.

    Raises:
        UserError: no such file, invalid YAML (with line), or no mapping in it.
    """
    if not path.is_file():
        raise UserError(f"Config file '{path}' does not exist.")
    try:
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}" if mark else ""
        raise UserError(
            f"{path}{place}: not valid YAML ({getattr(error, 'problem', error)})."
        ) from error
    except (OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({error}).") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: settings are needed as 'key: value' lines.")
    return Layer(str(path), {str(key): value for key, value in values.items()}, path)


def config_names(group: str) -> list[str]:
    """Return the names of the YAML files in ``configs/<group>``."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


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


def _with_selected_files(top: Sequence[Layer]) -> list[Layer]:
    base = read_layer(CONFIGS / "base.yaml")
    chosen: dict[str, Layer] = {}
    for group in ("dataset", "method", "backbone"):
        # the dataset and the method may each recommend a backbone; what the user says wins
        sources = [base, *(chosen[g] for g in ("dataset", "method") if g in chosen), *top]
        names = [name for layer in sources if (name := _selected(layer, group)) is not None]
        if not names:
            raise UserError(
                f"No {group} is chosen; give {group}=NAME, one of: "
                f"{', '.join(config_names(group))}."
            )
        layer = read_layer(config_file(group, names[-1]))
        values = dict(layer.values)
        values[group] = _selection(group, names[-1], values.get(group))
        chosen[group] = dataclasses.replace(layer, values=values)
    selected = [chosen[group] for group in SELECTED]
    return [_without_shorthand(layer) for layer in (base, *selected, *top)]


def _selection(group: str, name: str, section: Any) -> Any:
    if group == "method":
        return Path(name).stem
    if isinstance(section, str):
        section = {"name": section}
    return {"config": name, **(section if isinstance(section, dict) else {})}


def _selected(layer: Layer, group: str) -> str | None:
    value = layer.values.get(group)
    if isinstance(value, Mapping):
        value = value.get("config")
    if value is not None and not isinstance(value, str):
        raise UserError(f"{layer.source}: {group}={value!r} is not accepted; a name is needed.")
    return value


def _without_shorthand(layer: Layer) -> Layer:
    """``dataset: flickr8k`` has done its work by now; ``loss: csq`` names a loss."""
    values = dict(layer.values)
    for key, value in values.items():
        if isinstance(value, str) and key in SELECTED:
            values[key] = Path(value).stem if key == "method" else {}
        elif isinstance(value, str) and key in COMPONENTS:
            values[key] = {"name": value}
    return dataclasses.replace(layer, values=values)


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        present = into.get(key)
        if not isinstance(value, Mapping):
            into[key] = value
            continue
        if not isinstance(present, dict):
            present = {}
        named = value.get("name")
        if key in COMPONENTS and named is not None and present.get("name", named) != named:
            # another component: what the previous one was told means nothing to it
            kept = ("config", "lr", "groups") if key == "optim" else ("config",)
            present = {k: v for k, v in present.items() if k in kept}
        into[key] = present
        _merge_plain(present, value)


def _merge_plain(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge_plain(into[key], value)
        elif isinstance(value, Mapping):
            into[key] = {}
            _merge_plain(into[key], value)
        else:
            into[key] = value


def _set_path(nested: dict[str, Any], keys: list[str], value: Any) -> None:
    for depth, key in enumerate(keys[:-1]):
        inner = nested.get(key)
        if isinstance(inner, str) and depth == 0:
            inner = {"config" if key in SELECTED else "name": inner}  # dataset=x dataset.root=y
        if not isinstance(inner, dict):
            inner = {}
        nested[key] = inner
        nested = inner
    last = keys[-1]
    if isinstance(nested.get(last), dict) and isinstance(value, str):
        nested[last]["config" if last in SELECTED else "name"] = value  # dataset.root=y dataset=x
    else:
        nested[last] = value


def _plugins(merged: Mapping[str, Any]) -> list[str]:
    plugins = merged.get("plugins") or []
    if isinstance(plugins, str):
        plugins = [plugins]
    if not isinstance(plugins, list) or not all(isinstance(item, str) for item in plugins):
        raise UserError(
            "plugins is not accepted; a list of Python files is needed: plugins=[file.py]."
        )
    return plugins


TOP_LEVEL = ("method", "bits", "seed", "output", "plugins", "data", "eval", *COMPONENTS)


def _check(merged: dict[str, Any], layers: Sequence[Layer]) -> RunConfig:
    def locate(path: str) -> str:
        return _locate(layers, path)

    for key in merged:
        if key not in TOP_LEVEL:
            fields = [(name, Any, None) for name in TOP_LEVEL]
            schema.build(dataclasses.make_dataclass("Run", fields), {key: None}, "", locate)
    for section in ("data", "eval", *COMPONENTS):
        schema.convert(dict, merged.get(section, {}), section, locate)
    head = {key: merged.get(key) for key in ("method", "bits", "seed", "output")}
    top = schema.build(_Top, {k: v for k, v in head.items() if v is not None}, "", locate)
    dataset_name = Path(merged["dataset"].get("config", "dataset")).stem
    parts = {
        section: _component(section, merged.get(section, {}), locate)
        for section in ("dataset", "backbone", "model", "loss", "runner")
        if not (section == "loss" and merged.get("loss", {}).get("name") in (None, "none"))
    }
    model, loss = parts["model"], parts.get("loss")
    _check_fit(model, loss)
    optim = _optim(merged, model, loss, locate)
    data = schema.build(DataConfig, merged.get("data", {}), "data", locate)
    evaluation = schema.build(EvalConfig, merged.get("eval", {}), "eval", locate)
    _check_at(evaluation, locate)
    _check_ranges(top, data, evaluation, locate)
    resolved = {
        **schema.plain(top),
        "plugins": [str(Path(path).expanduser().resolve()) for path in _plugins(merged)],
        **{section: _plain_component(merged, section, part) for section, part in parts.items()},
        **({} if loss else {"loss": {"name": "none"}}),
        "optim": merged.get("optim", {}),
        "schedule": merged.get("schedule", {}),
        "data": schema.plain(data),
        "eval": schema.plain(evaluation),
    }
    resolved["optim"] = {**resolved["optim"], "groups": _plain_groups(optim)} if optim else {}
    if not optim:
        resolved["schedule"] = {}
    return RunConfig(
        method=top.method, bits=top.bits, seed=top.seed, output=top.output,
        dataset_name=dataset_name, dataset=parts["dataset"], backbone=parts["backbone"],
        model=model, loss=loss, optim=optim, runner=parts["runner"], data=data,
        eval=evaluation, resolved=resolved,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Top:
    method: str
    bits: int
    seed: int = 0
    output: str = "runs"


def _component(
    section: str, values: Mapping[str, Any], locate: schema.Locate, path: str | None = None
) -> Component:
    path = path or section
    name = schema.convert(dict, values, path, locate).get("name")
    if not isinstance(name, str):
        known = ", ".join(COMPONENTS[section].names())
        raise UserError(f"{locate(path)}: key '{path}.name' is missing; one of {known} is needed.")
    try:
        entry = COMPONENTS[section].get(name)
    except UserError as error:
        raise UserError(f"{locate(f'{path}.name')}: {error}") from error
    own = {k: v for k, v in values.items() if k not in ("name", "config")}
    return Component(entry, schema.build(entry.config, own, path, locate))


def _plain_component(merged: Mapping[str, Any], section: str, part: Component) -> dict[str, Any]:
    chosen = merged.get(section, {}).get("config")
    head = {"config": chosen} if chosen is not None else {}
    return {**head, "name": part.name, **schema.plain(part.config)}


def _check_fit(model: Component, loss: Component | None) -> None:
    """Refuse a model and a loss that cannot work together, before anything is built."""
    if loss is None or not model.entry.provides:
        return
    given, needs = model.entry.provides, _needs(loss.entry, model.entry)
    missing = [name for name in needs if name not in given]
    if missing:
        raise UserError(
            f"Loss '{loss.name}' does not fit model '{model.name}': it needs {', '.join(missing)}, "
            f"and the model gives {', '.join(given)}; choose another loss.name or model.name."
        )
    modalities = {name.split("_")[0] for name in needs}
    untrained = [n for n in given if n.endswith("_code") and n.split("_")[0] not in modalities]
    if needs and untrained:
        raise UserError(
            f"Loss '{loss.name}' does not fit model '{model.name}': it reads {', '.join(needs)} "
            f"only, so the model's {', '.join(untrained)} would stay untrained; choose another "
            "loss.name or model.name."
        )


def _needs(loss: registry.Entry, model: registry.Entry) -> list[str]:
    """The outputs a loss reads; ``*_code`` stands for every code that the model gives."""
    names: list[str] = []
    for need in loss.needs:
        names += fnmatch.filter(model.provides, need) if "*" in need else [need]
    return names


def _optim(
    merged: Mapping[str, Any], model: Component, loss: Component | None, locate: schema.Locate
) -> dict[str, OptimGroup]:
    """Settings per group: the section's, then what the component recommends, then the user's."""
    if loss is None:
        return {}
    section = dict(merged.get("optim", {}))
    asked = schema.convert(
        dict[str, dict], section.pop("groups", None) or {}, "optim.groups", locate
    )
    recommended = {
        "backbone": {}, "head": {}, **model.entry.groups,
        **(loss.entry.groups or {"loss": {}}),
    }  # fmt: skip
    for name in asked:
        if name not in recommended:
            raise UserError(
                f"{locate(f'optim.groups.{name}')}: "
                f"{unknown_name('parameter group', name, recommended)} "
                f"(the groups of model '{model.name}' and loss '{loss.name}')"
            )
    common = {"schedule": merged.get("schedule", {}), **section}
    _optim_group(common, "optim", locate)  # so that a slip is reported where it was typed
    groups = {}
    for name, advice in recommended.items():
        values = dict(common)
        for layer in (advice, asked.get(name) or {}):
            if layer.get("name", values.get("name")) != values.get("name"):
                values = {key: values[key] for key in ("lr", "schedule") if key in values}
            values.update(layer)
        groups[name] = _optim_group(values, f"optim.groups.{name}", locate)
    return groups


def _optim_group(values: Mapping[str, Any], path: str, locate: schema.Locate) -> OptimGroup:
    def locate_group(full: str) -> str:
        # a key may come from the group or from the section that all groups share
        place = locate(full)
        return place if place != "defaults" else locate(full.replace(path, "optim", 1))

    rest = {key: value for key, value in values.items() if key not in ("lr", "schedule")}
    rate = schema.convert(float, values.get("lr"), f"{path}.lr", locate_group)
    if not 0 <= rate < math.inf:
        raise UserError(
            f"{locate_group(f'{path}.lr')}: {path}.lr={rate} is not accepted; 0 or more is needed."
        )
    schedule = values.get("schedule") or "constant"
    if isinstance(schedule, str):
        schedule = {"name": schedule}
    return OptimGroup(
        optimizer=_component("optim", rest, locate_group, path),
        lr=rate,
        schedule=_component("schedule", schedule, locate_group, _schedule_path(path)),
    )


def _schedule_path(path: str) -> str:
    return "schedule" if path == "optim" else f"{path}.schedule"


def _plain_groups(optim: Mapping[str, OptimGroup]) -> dict[str, Any]:
    return {
        name: {
            "name": group.optimizer.name, "lr": group.lr, **schema.plain(group.optimizer.config),
            "schedule": {"name": group.schedule.name, **schema.plain(group.schedule.config)},
        }
        for name, group in optim.items()
    }  # fmt: skip


def _check_at(evaluation: EvalConfig, locate: schema.Locate) -> None:
    for value in evaluation.at:
        if value != "all" and not (isinstance(value, int) and value >= 1):
            raise UserError(
                f"{locate('eval.at')}: eval.at={evaluation.at} is not accepted; a list of "
                "'all' and whole numbers from 1 is needed, for example [all,1000]."
            )


def _check_ranges(
    top: _Top, data: DataConfig, evaluation: EvalConfig, locate: schema.Locate
) -> None:
    if not 0 <= top.seed < 2**32:
        raise UserError(
            f"{locate('seed')}: seed={top.seed} is not accepted; 0 to {2**32 - 1} is needed."
        )
    for path, value in {
        "bits": top.bits, "data.eval_batch_size": data.eval_batch_size,
        "eval.every": evaluation.every,
    }.items():  # fmt: skip
        if value < 1:
            raise UserError(
                f"{locate(path)}: {path}={value} is not accepted; at least 1 is needed."
            )


def _locate(layers: Sequence[Layer], path: str) -> str:
    """Say which layer set ``path`` last, with the line where it is a file."""
    keys = path.split("[")[0].split(".")
    for layer in reversed(layers):
        value: Any = layer.values
        for key in keys:
            value = value.get(key, _ABSENT) if isinstance(value, Mapping) else _ABSENT
        if value is not _ABSENT and layer.source != "command line" and layer.file:
            line = _line_of(layer.file, keys)
            return f"{layer.source}:{line}" if line else layer.source
        if value is not _ABSENT:
            return layer.source
    return "defaults"


_ABSENT = object()


def _line_of(file: Path, keys: list[str]) -> int | None:
    node = yaml.compose(file.read_text(encoding="utf-8"))
    line = None
    for key in keys:
        if not isinstance(node, yaml.MappingNode):
            return line
        for key_node, value_node in node.value:
            if key_node.value == key:
                line, node = key_node.start_mark.line + 1, value_node
                break
        else:
            return line
    return line


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        path = f"{prefix}{key}"
        flat.update(_flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value})
    return flat
