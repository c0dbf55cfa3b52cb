"""A sweep in miniature: every distinct run with its own parts, a few rows and two steps.

Architecture, geometry, texts, losses, stages, optimisers, selection, directions and measures are
those of the sweep; rows, epochs and the batch are cut. An encoder whose weights are missing gets
random ones, a dataset that is not prepared is replaced by drawn rows of its kind, and so are
generated pictures: all told. Encoders are built once for all runs.

Everything is written into one folder ``<output>/.smoke-…``, caches included, and removed at the
end; no report, search or later run reads it.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.code_files.run_codes import read_codes
from common.config.layers import Layer
from common.config.run_config import Component, RunConfig, compose_layers
from common.storage import checkpoint
from common.storage.cache import cache_root
from common.storage.leases import is_alive, this_process
from common.storage.run_folder import SMOKE, RunFolder
from dataset.auxiliary.captions import with_generated
from dataset.auxiliary.stand_in import with_stand_ins
from dataset.base import HashDataset
from dataset.miniature import Sizes, miniature
from dataset.preparation.prepared_dataset import PreparedConfig
from dataset.preparation.stand_in import is_prepared, stand_in
from models.backbones.build import build_entry
from models.backbones.weights import RANDOM
from models.base import Backbone
from runners.base import run_config
from runners.standard import NonFiniteLossError
from runners.sweeps.queue import disk_is_full
from utils.errors import MissingWeightsError, UserError
from utils.faults import described, mendable
from utils.files import saying_why, write_json
from utils.logs import console_shows

log = logging.getLogger("hashing")
STEPS, ROWS = 2, 4  # epochs of one step; rows of a batch at most
QUERIES, DATABASE, VALIDATION, GENERATED = 4, 8, 2, 2  # rows
_MOST = {"epochs": STEPS, "batch_size": ROWS, "accumulate": 2}
"""Keys of ``runner``, at any depth, and the most that a smoke lets them be."""


REAL, FEWER, DRAWN = "real", "real, fewer", "drawn"
"""Rows of a smoke: of the dataset by its split, of it by a smaller split, or stand-ins."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """How one run in miniature ended.

    Attributes:
        config: of the real run.
        encoder: its name and where its weights are from.
        rows: :data:`REAL`, :data:`FEWER` or :data:`DRAWN`.
        seconds: it took.
        peak_mb: memory of the process in 10⁶ bytes, where it was measured.
        reason: why it failed; "" where it passed.
        by_user: whether the user can mend what failed; else it is a fault of the program.
    """

    config: RunConfig
    encoder: str
    rows: str
    seconds: float
    peak_mb: float | None = None
    reason: str = ""
    by_user: bool = False


class Parts:
    """What the runs of a smoke share: encoders are built once, datasets are read once.

    Attributes:
        told: what stands in for something, in sentences, in the order of their occurrence.
        rows: settings of a dataset → which rows stand for it.
    """

    def __init__(self, cache: str) -> None:
        """``cache``: the user's cache folder, where drawn creatures lie as ever."""
        self.cache = cache
        self.told: dict[str, None] = {}
        self.rows: dict[str, str] = {}
        self._random: dict[str, str] = {}
        self._encoders: dict[str, Backbone] = {}
        self._datasets: dict[str, HashDataset] = {}

    def encoder(self, part: Component, name: str) -> Component:
        """Return an encoder's component that builds it once, at random where weights are missing.

        A copy is handed out of one that is trained.
        """

        def build(config: Any, modalities: tuple[str, ...]) -> Backbone:
            key = repr((part.name, config, modalities))
            if key not in self._encoders:
                self._encoders.clear()
                self._encoders[key] = self._built(part, name, config, modalities)
            kept = self._encoders[key]
            trained = any(parameter.requires_grad for parameter in kept.parameters())
            return copy.deepcopy(kept) if trained else kept

        return Component(dataclasses.replace(part.entry, target=build), part.config)

    def _built(
        self, part: Component, name: str, config: Any, modalities: tuple[str, ...]
    ) -> Backbone:
        key = repr((part.name, config))
        if key not in self._random:
            try:
                return build_entry(part.entry, config, modalities)
            except MissingWeightsError as error:
                self._random[key] = str(error)
                self.told[f"Encoder {name} has random weights: {error}"] = None
        with console_shows(lambda record: False):
            config = dataclasses.replace(config, weights=RANDOM)
            return build_entry(part.entry, config, modalities)

    def weights_of(self, part: Component) -> str:
        """Return in a word where the weights of an encoder are from."""
        if repr((part.name, part.config)) in self._random:
            return "random"
        weights = getattr(part.config, "weights", None)
        return {None: "none needed", RANDOM: "random, as set"}.get(weights, "real")

    def dataset(self, part: Component, generated: str | None, sizes: Sizes) -> Component:
        """Return a dataset's component that gives it in miniature, with its generated rows."""

        def build(config: Any, name: str) -> HashDataset:
            key = repr((part.name, config, generated))
            if key not in self._datasets:
                self._datasets.clear()
                self.rows[repr(config)] = REAL
                with _environment("HASHING_CACHE", self.cache):
                    whole = self._whole(part, config, name)
                drawn = self.rows[repr(config)] == DRAWN
                self._datasets[key] = self._with_generated(whole, generated, drawn)
            return miniature(self._datasets[key], sizes)

        return Component(dataclasses.replace(part.entry, target=build), part.config)

    def _whole(self, part: Component, config: Any, name: str) -> HashDataset:
        if not isinstance(config, PreparedConfig):
            return part.entry.target(config, name)
        if is_prepared(config):
            try:
                return part.entry.target(config, name)
            except UserError as error:
                return self._fewer(part, config, name, error)
        self.rows[repr(config)] = DRAWN
        self.told[
            f"Dataset {name} is not prepared in '{config.root}': drawn rows of its kind stand in "
            f"(python main.py prepare {config.source.name} --root {config.root or 'DIR'})."
        ] = None
        return stand_in(config, name)

    def _fewer(
        self, part: Component, config: PreparedConfig, name: str, error: UserError
    ) -> HashDataset:
        """Return the dataset under a smaller split: the rows are there, too few for the real one.

        Drawn rows stand in where no split can be drawn, as without published lists.
        """
        protocol = config.protocol()
        query, train = protocol.query, protocol.train
        while query and train and min(query, train) > 1:
            query, train = query // 2, train // 2
            choice = dataclasses.replace(config.choice, query=query, train=train)
            with contextlib.suppress(UserError):
                dataset = part.entry.target(dataclasses.replace(config, split=choice), name)
                self.rows[repr(config)] = FEWER
                self.told[
                    f"Dataset {name}: {error} Here split.query={query} and split.train={train}."
                ] = None
                return dataset
        self.rows[repr(config)] = DRAWN
        self.told[f"Dataset {name}: {error} Drawn rows of its kind stand in."] = None
        return stand_in(config, name)

    def _with_generated(self, dataset: HashDataset, folder: str | None, drawn: bool) -> HashDataset:
        if folder is None:
            return dataset
        if Path(folder).expanduser().exists() and not drawn:
            return with_generated(dataset, folder)
        self.told[
            f"Generated captions and pictures of {dataset.name}, data.generated={folder}, are not "
            "there or not of these rows: drawn ones stand in."
        ] = None
        return with_stand_ins(dataset)


def one_seed(configs: Sequence[RunConfig]) -> list[RunConfig]:
    """Return the first of the runs that differ in nothing but their seed."""
    first: dict[str, RunConfig] = {}
    for config in configs:
        first.setdefault(repr({**config.resolved, "seed": None}), config)
    return list(first.values())


def in_miniature(
    config: RunConfig, output: Path, parts: Parts, *, text: str | None = None
) -> RunConfig:
    """Return the run with a few rows and steps, its results below ``output``.

    ``text``: weights of the model's own text encoder instead of the configured ones.
    """
    resolved: dict[str, Any] = copy.deepcopy(dict(config.resolved))
    generated = resolved["data"]["generated"]
    resolved["output"] = str(output)
    runner = resolved["runner"] = _limited(resolved["runner"])
    if runner.get("checkpoint_every") is not None:
        runner["checkpoint_every"] = STEPS
    data = resolved["data"]
    data |= {"generated": None, "workers": min(data["workers"], 1)}
    data["eval_batch_size"] = min(data["eval_batch_size"], ROWS)
    resolved["eval"] |= {"every": 1}
    selects = resolved["eval"]["select"] == "val" and runner.get("epochs") is not None
    if selects:
        resolved["eval"]["val_size"] = VALIDATION
    for section in ("model", "loss"):
        for key, value in resolved[section].items():
            if key.endswith("warmup") and isinstance(value, int):
                resolved[section][key] = min(value, 1)  # epochs: what comes after is tried, too
    if text is not None:
        resolved["model"]["text"] |= {"weights": text, "vocabulary": None}
    rows = (runner.get("batch_size") or max(ROWS, config.bits)) * (runner.get("accumulate") or 1)
    extra = GENERATED if generated is not None else 0
    sizes = Sizes(
        train=max(rows - extra, 2) + (VALIDATION if selects else 0), query=QUERIES,
        database=DATABASE, val=VALIDATION, generated=extra,
    )  # fmt: skip
    short = compose_layers([Layer("smoke", resolved)], "load")
    marked = {**short.resolved["dataset"], "smoke": dataclasses.asdict(sizes)}
    return dataclasses.replace(
        short,
        dataset=parts.dataset(short.dataset, generated, sizes),
        backbone=parts.encoder(short.backbone, encoder_name(config)),
        resolved={**short.resolved, "dataset": {**marked, "generated": generated}},
    )


def _limited(section: Mapping[str, Any]) -> dict[str, Any]:
    limited = dict(section)
    for key, value in section.items():
        if isinstance(value, Mapping):
            limited[key] = _limited(value)
        elif key in _MOST and value is not None:
            limited[key] = min(value, _MOST[key])
    return limited


def encoder_name(config: RunConfig) -> str:
    """Return how results call the encoder of a run."""
    return str(config.resolved["backbone"].get("config", config.backbone.name))


def smoke(configs: Sequence[RunConfig], output: Path) -> list[Trial]:
    """Try every run in miniature; what was written below ``output`` is removed.

    Raises:
        UserError: a full disk, or a folder that cannot be written to.
        KeyboardInterrupt: after Ctrl-C; nothing stays behind.
    """
    trials: list[Trial] = []
    parts = Parts(str(cache_root()))
    warned: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        new = logging.WARNING <= record.levelno < logging.ERROR and text not in warned
        warned.add(text)
        return new

    with _folder_in(output) as folder, _environment("HASHING_CACHE", str(folder / "cache")):
        for number, config in enumerate(configs, 1):
            known = set(parts.told)
            with console_shows(is_new):
                trial = _try(config, folder / "runs", parts)
            for sentence in parts.told:
                if sentence not in known:
                    log.info("%s", sentence)
            state = f"failed: {trial.reason}" if trial.reason else "passed"
            name = f"{config.method} {config.dataset_name} {trial.encoder}, {config.bits} bits"
            log.info("[%d/%d] %s: %s (%.1f s)", number, len(configs), name, state, trial.seconds)
            trials.append(trial)
    return trials


def _try(config: RunConfig, output: Path, parts: Parts) -> Trial:
    start, peak, reason, by_user, text = time.perf_counter(), None, "", False, ""
    try:
        try:
            peak = _carried_out(in_miniature(config, output, parts))
        except MissingWeightsError as error:  # of the model: an encoder's own were replaced
            text_settings = config.resolved["model"].get("text", {})
            words = text_settings.get("vocabulary") is not None
            if text_settings.get("weights", RANDOM) == RANDOM and not words:
                raise
            parts.told[f"The text encoder of {config.method} is a random one: {error}"] = None
            text = ", text random"
            peak = _carried_out(in_miniature(config, output, parts, text=RANDOM))
    except Exception as error:  # noqa: BLE001 - the others are tried all the same
        if disk_is_full(error):
            raise UserError(
                f"The disk of '{output.parent.parent}' is full; free some space, or give another "
                "folder with --output, and try again (what the smoke wrote is removed)."
            ) from error
        to_mend = error if isinstance(error, UserError) else mendable(error)
        by_user = to_mend is not None and not isinstance(error, NonFiniteLossError)
        reason = str(to_mend or described(error))
    finally:
        shutil.rmtree(output, ignore_errors=True)
    return Trial(
        config, f"{encoder_name(config)} ({parts.weights_of(config.backbone)}{text})",
        parts.rows.get(repr(config.dataset.config), REAL),
        time.perf_counter() - start, peak, reason, by_user,
    )  # fmt: skip


def _carried_out(config: RunConfig) -> float:
    """Do the run, read again what it wrote, and return its peak memory in 10⁶ bytes."""
    folder: RunFolder = run_config(config)
    for name in ("best", "last"):
        if (folder.checkpoints / name).is_dir():
            checkpoint.verify(folder.checkpoints / name)
    read_codes(folder.codes_file)
    return float(folder.metrics()["memory"]["peak_mb"])


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _folder_in(output: Path) -> Iterator[Path]:
    """Yield a new folder in ``output``; it goes at the end, and so do parents that were made.

    Folders of earlier smokes whose process was killed go, too.
    """
    made = [folder for folder in (output, *output.parents) if not folder.exists()]
    for folder in output.glob(f"{SMOKE}*"):
        with contextlib.suppress(OSError, ValueError):
            if not is_alive(json.loads((folder / "owner.json").read_text(encoding="utf-8"))):
                shutil.rmtree(folder, ignore_errors=True)
    try:
        with saying_why(output):
            output.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=SMOKE, dir=output.resolve()))
        try:
            write_json(folder / "owner.json", this_process())
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
