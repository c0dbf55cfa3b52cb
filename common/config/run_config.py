"""A run's configuration: composed from layers, checked strictly, named by its hash."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from common import registry
from common.config import schema
from common.config.layers import (
    Layer,
    locate,
    merge,
    parse_overrides,
    read_layer,
    short_name,
    with_selected_files,
)
from common.config.plugins import Received, named_plugins
from utils.errors import UserError, unknown_name
from utils.files import digest

COMPONENTS = {
    "dataset": registry.DATASETS,
    "backbone": registry.BACKBONES,
    "model": registry.MODELS,
    "loss": registry.LOSSES,
    "optim": registry.OPTIMIZERS,
    "schedule": registry.SCHEDULERS,
    "runner": registry.RUNNERS,
}
MOST_BITS = 2**16
NOT_IDENTITY = (
    "output", "plugins", "data.workers", "runner.threads", "runner.device", "runner.pictures",
)  # fmt: skip
"""Keys that change where or how fast a run happens, not its result; left out of its hash."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Section ``data``: how rows reach the model."""

    train_image: list[str] | None = None  # operations on pictures; None: [squash 224 bicubic]
    eval_image: list[str] | None = None  # the same of query and database pictures, without chance
    captions: Literal["random", "first"] = "random"  # drawn at each training access, or fixed
    eval_captions: Literal["random", "first"] = "first"  # of query and database texts
    on_bad_image: Literal["error", "skip"] = "error"  # one that cannot be read
    feature_cache: Literal["auto", "off"] = "auto"  # auto: whenever the encoder is frozen
    caption_noise: float = 0.0  # share of training rows whose captions are shuffled among them
    generated: str | None = None  # folder of `main.py generate`: captions, query pictures
    workers: int = 0  # loading processes; 0: the main process loads
    eval_batch_size: int = 256  # rows, where nothing is trained


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Section ``eval``: what is measured, and the rows that select the epoch."""

    select: Literal["val", "query", "last"] = "val"  # rows that choose the epoch; last: no choice
    val_size: int | float = 0.1  # rows, or a fraction of the training rows, when select=val
    every: int = 1  # epochs between evaluations while training
    epoch_per: Literal["run", "direction", "cut"] = "run"  # what has a best epoch of its own
    measure: list[str] | None = None  # mAPs of releases, e.g. deephash@5000; the first selects
    directions: list[Literal["i2i", "i2t", "t2i", "t2t"]] | None = None  # None: by modalities
    at: list[int | str] = dataclasses.field(default_factory=lambda: ["all"])  # cuts of mAP
    no_relevant: Literal["zero", "skip"] = "zero"  # what a query without relevant rows counts


@dataclasses.dataclass(frozen=True)
class Component:
    """A registered component, chosen by name, with its checked settings."""

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

    ``resolved`` are all settings, with defaults, as plain dicts and lists: the content of
    ``config.yaml``, which reproduces the run.
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
    optim: Mapping[str, OptimGroup]  # every group that model and loss declare
    runner: Component
    data: DataConfig
    eval: EvalConfig
    resolved: Mapping[str, Any]

    @functools.cached_property
    def hash(self) -> str:
        """First 8 hex digits of the hash of everything that decides the result."""
        identity = {k: v for k, v in schema.flat(self.resolved).items() if k not in NOT_IDENTITY}
        return digest(repr(sorted(identity.items())), *self.plugin_digests)[:8]

    @property
    def plugin_digests(self) -> list[str]:
        """First 16 hex digits of the SHA-256 of each plugin."""
        return [entry["sha256"][:16] for entry in self.resolved["plugins"]]

    @property
    def run_name(self) -> str:
        """Folder name of the run: ``<dataset>-<method>-<bits>bit-s<seed>-<hash>``."""
        return f"{self.dataset_name}-{self.method}-{self.bits}bit-s{self.seed}-{self.hash}"


def compose(
    overrides: Sequence[str] = (), file: str | Path | None = None, received: Received = "refuse"
) -> RunConfig:
    """Return the checked configuration for ``key=value`` words and a ``--config`` file.

    ``received``: what is done with plugins of a run's ``config.yaml``.

    Raises:
        UserError: an unknown name or key, a mistyped value, a missing file, a model and a loss that
            do not fit, a plugin that must not run; the message says where and what is accepted.
    """
    return compose_layers(top_layers(overrides, file), received)


def top_layers(overrides: Sequence[str], file: str | Path | None) -> list[Layer]:
    """Return the layers of a ``--config`` file and of ``key=value`` words."""
    words = Layer("command line", parse_overrides(overrides))
    return [words] if file is None else [read_layer(Path(file)), words]


def compose_layers(top: Sequence[Layer], received: Received = "refuse") -> RunConfig:
    """Return the checked configuration for ``top`` layers over the project's YAML files."""
    layers = with_selected_files(top, received)
    return _check(_merged(layers), layers)


def _merged(layers: Sequence[Layer]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for layer in layers:
        merge(merged, layer.values)
    return merged


def read_complete(resolved: Mapping[str, Any]) -> RunConfig:
    """Return the configuration that a run's ``config.yaml`` holds; its plugins are not executed.

    Raises:
        UserError: a component or key that is not known, such as one of a plugin.
    """
    return compose_layers([Layer("config.yaml", resolved)], "skip")


def unchecked(top: Sequence[Layer]) -> dict[str, Any] | None:
    """Return the settings of ``top``, not checked, where a received layer names plugins.

    None of these is executed, so their components are not known; None: there is no such layer.
    """
    plugins = [
        dataclasses.asdict(plugin)
        for layer in top
        if layer.is_received
        for plugin in named_plugins(layer.values, layer.source)
    ]
    if not plugins:
        return None
    merged = _merged(with_selected_files(top, "skip"))
    return {**merged, "plugins": [*plugins, *(p for p in merged["plugins"] if p not in plugins)]}


def eval_settings(layers: Sequence[Layer]) -> EvalConfig:
    """Return section ``eval`` of a run and words over it; no other section is looked at.

    Raises:
        UserError: an unknown key or a value that is not accepted.
    """
    locate_key = functools.partial(locate, layers)
    section = _merged([Layer(la.source, {"eval": la.values.get("eval", {})}) for la in layers])
    values = schema.convert(dict, section["eval"], "eval", locate_key)
    evaluation = schema.build(EvalConfig, values, "eval", locate_key)
    _check_eval(evaluation, locate_key)
    return evaluation


TOP_LEVEL = ("method", "bits", "seed", "output", "plugins", "data", "eval", *COMPONENTS)
_Keys = dataclasses.make_dataclass("_Keys", [(name, Any, None) for name in TOP_LEVEL])


def _check(merged: dict[str, Any], layers: Sequence[Layer]) -> RunConfig:
    locate_key = functools.partial(locate, layers)
    schema.build(_Keys, merged, "", locate_key)
    for section in ("data", "eval", *COMPONENTS):
        schema.convert(dict, merged.get(section, {}), section, locate_key)
    head = {key: merged.get(key) for key in ("method", "bits", "seed", "output")}
    top = schema.build(_Top, {k: v for k, v in head.items() if v is not None}, "", locate_key)
    parts = {
        section: _component(section, merged.get(section, {}), locate_key, section)
        for section in ("dataset", "backbone", "model", "loss", "runner")
        if not (section == "loss" and merged.get("loss", {}).get("name") in (None, "none"))
    }
    dataset_name = short_name(merged["dataset"].get("config", parts["dataset"].name))
    model, loss = parts["model"], parts.get("loss")
    if loss and (problem := misfit(model.entry, loss.entry)):
        raise UserError(problem)
    optim = _optim(merged, model, loss, locate_key)
    data = schema.build(DataConfig, merged.get("data", {}), "data", locate_key)
    evaluation = schema.build(EvalConfig, merged.get("eval", {}), "eval", locate_key)
    _check_ranges(top, data, evaluation, locate_key)
    resolved = {
        **schema.plain(top),
        "plugins": merged.get("plugins", []),
        **{section: _plain_component(merged, section, part) for section, part in parts.items()},
        **({} if loss else {"loss": {"name": "none"}}),
        "optim": {**merged.get("optim", {}), "groups": _plain_groups(optim)} if optim else {},
        "schedule": merged.get("schedule", {}) if optim else {},
        "data": schema.plain(data),
        "eval": schema.plain(evaluation),
    }
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
    section: str, values: Mapping[str, Any], locate: schema.Locate, path: str
) -> Component:
    name = schema.convert(dict, values, path, locate).get("name")
    if not isinstance(name, str):
        known = ", ".join(COMPONENTS[section].names())
        raise UserError(f"{locate(path)}: key '{path}.name' is missing; one of {known} is needed.")
    try:
        entry = COMPONENTS[section].get(name)
    except UserError as error:
        raise UserError(f"{locate(f'{path}.name')}: {error}") from error
    settings = {k: v for k, v in values.items() if k not in ("name", "config")}
    return Component(entry, schema.build(entry.config, settings, path, locate))


def _plain_component(merged: Mapping[str, Any], section: str, part: Component) -> dict[str, Any]:
    chosen = merged.get(section, {}).get("config")
    head = {"config": short_name(chosen)} if chosen is not None else {}
    return {**head, "name": part.name, **schema.plain(part.config)}


def misfit(model: registry.Entry, loss: registry.Entry) -> str | None:
    """Return why a model and a loss cannot work together, or None; neither is built."""
    if not model.provides:
        return None
    provided = model.provides
    needs = [  # *_code means all codes of the model
        name
        for need in loss.needs
        for name in (fnmatch.filter(provided, need) if "*" in need else [need])
    ]
    missing = [name for name in needs if name not in provided]
    if missing:
        return (
            f"Loss '{loss.name}' does not fit model '{model.name}': it needs {', '.join(missing)}, "
            f"and the model gives {', '.join(provided)}; choose another loss.name or model.name."
        )
    modalities = {name.split("_")[0] for name in needs}
    codes = [name for name in provided if name.endswith("_code")]
    untrained = [name for name in codes if name.split("_")[0] not in modalities]
    if needs and untrained:
        return (
            f"Loss '{loss.name}' does not fit model '{model.name}': it reads {', '.join(needs)} "
            f"only, so the model's {', '.join(untrained)} would stay untrained; choose another "
            "loss.name or model.name."
        )
    return None


def _optim(
    merged: Mapping[str, Any], model: Component, loss: Component | None, locate: schema.Locate
) -> dict[str, OptimGroup]:
    """Return settings per group: the section's, then the component's, then the user's."""
    if loss is None:
        return {}
    section = dict(merged.get("optim", {}))
    user_groups = schema.convert(
        dict[str, dict], section.pop("groups", None) or {}, "optim.groups", locate
    )
    recommended = {
        "backbone": {}, "head": {}, **model.entry.groups,
        **(loss.entry.groups or {"loss": {}}),
    }  # fmt: skip
    for name in user_groups:
        if name not in recommended:
            raise UserError(
                f"{locate(f'optim.groups.{name}')}: "
                f"{unknown_name('parameter group', name, recommended)} "
                f"(the groups of model '{model.name}' and loss '{loss.name}')"
            )
    common = {"schedule": merged.get("schedule", {}), **section}
    _optim_group(common, "optim", locate)  # an error in the section is reported there
    groups = {}
    for name, recommendation in recommended.items():
        values = dict(common)
        for layer in (recommendation, user_groups.get(name) or {}):
            if layer.get("name", values.get("name")) != values.get("name"):
                values = {key: values[key] for key in ("lr", "schedule") if key in values}
            values.update(layer)
        groups[name] = _optim_group(values, f"optim.groups.{name}", locate)
    return groups


def _optim_group(values: Mapping[str, Any], path: str, locate: schema.Locate) -> OptimGroup:
    def locate_group(full: str) -> str:
        # a key comes from the group or from the section that all groups share
        location = locate(full)
        return location if location != "defaults" else locate(full.replace(path, "optim", 1))

    rest = {key: value for key, value in values.items() if key not in ("lr", "schedule")}
    rate = schema.convert(float, values.get("lr"), f"{path}.lr", locate_group)
    if not 0 <= rate < math.inf:
        raise schema.not_accepted(rate, "0 or more", f"{path}.lr", locate_group)
    schedule = values.get("schedule") or "constant"
    if isinstance(schedule, str):
        schedule = {"name": schedule}
    schedule_path = "schedule" if path == "optim" else f"{path}.schedule"
    return OptimGroup(
        optimizer=_component("optim", rest, locate_group, path),
        lr=rate,
        schedule=_component("schedule", schedule, locate_group, schedule_path),
    )


def _plain_groups(optim: Mapping[str, OptimGroup]) -> dict[str, Any]:
    return {
        name: {
            "name": group.optimizer.name, "lr": group.lr, **schema.plain(group.optimizer.config),
            "schedule": {"name": group.schedule.name, **schema.plain(group.schedule.config)},
        }
        for name, group in optim.items()
    }  # fmt: skip


def _check_ranges(
    top: _Top, data: DataConfig, evaluation: EvalConfig, locate: schema.Locate
) -> None:
    _check_eval(evaluation, locate)
    if not re.fullmatch(r"[\w.+=@~-]+", top.method) or set(top.method) == {"."}:
        accepted = "a name of letters, digits and . _ - + = @ ~"  # it is part of the folder's name
        raise schema.not_accepted(top.method, accepted, "method", locate)
    if not 0 <= data.caption_noise <= 1:
        accepted = "a share of the training rows, 0 to 1,"
        raise schema.not_accepted(data.caption_noise, accepted, "data.caption_noise", locate)
    if isinstance(evaluation.val_size, float) and not 0 <= evaluation.val_size < 1:
        accepted = "a whole number of rows, or a share of the training rows below 1,"
        raise schema.not_accepted(evaluation.val_size, accepted, "eval.val_size", locate)
    if not 0 <= top.seed < 2**32:
        raise schema.not_accepted(top.seed, f"0 to {2**32 - 1}", "seed", locate)
    if top.bits > MOST_BITS:
        raise schema.not_accepted(top.bits, f"at most {MOST_BITS:,}", "bits", locate)
    for path, value in {
        "bits": top.bits, "data.eval_batch_size": data.eval_batch_size,
    }.items():  # fmt: skip
        if value < 1:
            raise schema.not_accepted(value, "at least 1", path, locate)


def _check_eval(evaluation: EvalConfig, locate: schema.Locate) -> None:
    from common.metrics.compat.measures import parse_measure

    if not all(cut == "all" or (isinstance(cut, int) and cut >= 1) for cut in evaluation.at):
        raise UserError(
            f"{locate('eval.at')}: eval.at={evaluation.at} is not accepted; a list of "
            "'all' and whole numbers from 1 is needed, for example [all,1000]."
        )
    if evaluation.every < 1:
        raise schema.not_accepted(evaluation.every, "at least 1", "eval.every", locate)
    try:
        for measure in evaluation.measure or ():
            parse_measure(measure)
    except UserError as error:
        raise UserError(f"{locate('eval.measure')}: eval.measure: {error}") from error
    if evaluation.select == "last" and evaluation.epoch_per != "run":
        raise UserError(
            f"{locate('eval.epoch_per')}: eval.epoch_per={evaluation.epoch_per} lets epochs be "
            "chosen, and eval.select=last chooses none; give eval.select=val or query, or "
            "eval.epoch_per=run."
        )
