"""Registries: the component that a name in a YAML file stands for.

A class enters a registry by a decorator::

    @LOSSES.register("csq", config=CSQConfig, needs=("image_code",))
    class CSQLoss(HashLoss): ...

Nothing has to be imported by hand: a look-up first imports all modules of the registry's package
(so these must import heavy libraries where they use them, not at their top). A user's file is
imported by :func:`load_plugin`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import logging
import pkgutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from utils.errors import UserError, unknown_name

T = TypeVar("T")
log = logging.getLogger("hashing")


@dataclasses.dataclass(frozen=True)
class NoConfig:
    """Schema of a component without settings."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A registered component and its declarations, known without building it.

    Where ``provides`` is empty, a missing output is noticed at the first batch instead of at start.
    """

    name: str  # the word that selects it in YAML and on the command line
    target: Any  # the class or function
    config: type  # dataclass whose fields are the keys accepted beside ``name``
    needs: tuple[str, ...]  # of a loss: names of the model outputs it reads
    provides: tuple[str, ...]  # of a model: names of its outputs, where they are declared
    groups: Mapping[str, Mapping[str, Any]]  # of parameters, with recommended optimiser settings
    file: str  # where it was defined
    summary: str  # first line of its docstring


class Registry:
    """A table of named components of one kind, filled by discovery in one package."""

    def __init__(self, kind: str, package: str) -> None:
        """Create a table for ``kind`` (singular noun for messages), discovered in ``package``."""
        self.kind = kind
        self.package = package
        self._entries: dict[str, Entry] = {}

    def register(
        self,
        name: str,
        *,
        config: type = NoConfig,
        needs: tuple[str, ...] = (),
        provides: tuple[str, ...] = (),
        groups: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Callable[[T], T]:
        """Return a decorator that registers its class or function under ``name``.

        Raises:
            UserError: another file registered the same name, or ``config`` is no dataclass.
        """
        if not dataclasses.is_dataclass(config):
            raise UserError(
                f"The config of {self.kind} '{name}' is {config!r}; a dataclass is needed, whose "
                "fields become the accepted YAML keys."
            )

        def add(target: T) -> T:
            file = _source_file(target)
            previous = self._entries.get(name)
            if previous is not None and Path(previous.file).resolve() != Path(file).resolve():
                raise UserError(
                    f"The {self.kind} name '{name}' is registered twice: in {previous.file} and in "
                    f"{file}; rename one."
                )
            summary = (inspect.getdoc(target) or "").split("\n")[0]
            self._entries[name] = Entry(
                name,
                target,
                config,
                tuple(needs),
                tuple(provides),
                dict(groups or {}),
                file,
                summary,
            )
            return target

        return add

    def get(self, name: str) -> Entry:
        """Return the entry called ``name``.

        Raises:
            UserError: no such name; the message lists the known ones and the nearest.
        """
        discover(self.package)
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries)
        return self._entries[name]

    def names(self) -> list[str]:
        """Return all registered names in alphabetical order."""
        discover(self.package)
        return sorted(self._entries)

    def __contains__(self, name: str) -> bool:
        discover(self.package)
        return name in self._entries


def _source_file(target: Any) -> str:
    try:
        return inspect.getsourcefile(inspect.unwrap(target)) or "?"
    except (TypeError, OSError):  # defined in a notebook or a console
        return "?"


_discovered: set[str] = set()


def discover(package: str) -> None:
    """Import ``package`` and every module below it, once per process."""
    if package in _discovered:
        return
    _discovered.add(package)
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(getattr(root, "__path__", []), prefix=f"{package}."):
        importlib.import_module(module.name)


def load_plugin(path: str | Path, sha256: str = "", *, told: bool = False) -> Path:
    """Run a user's Python file, so that YAML can name the components it registers.

    The file is code that the user asks to run, unlike data files, which are never executed. What
    runs are the bytes whose hash is compared; compiled files beside it (``__pycache__``) are not
    used.

    Args:
        path: the Python file.
        sha256: in hex, what its content must have; "": anything.
        told: whether file and hash are logged before it runs.

    Raises:
        UserError: no such file, other content, or it fails while being imported.
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise UserError(f"Plugin file '{path}' does not exist; give the path of a Python file.")
    name = _plugin_module(file)
    if name in sys.modules:
        _require_hash(file, plugin_sha256(file), sha256)
        return file
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or file.suffix != ".py":
        raise UserError(f"Plugin '{path}' is not a Python file (its name must end in .py).")
    source = file.read_bytes()
    found = hashlib.sha256(source).hexdigest()
    _require_hash(file, found, sha256)
    if told:
        log.warning("runs plugin %r, SHA-256 %s", str(file), found)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _ran[name] = found
    try:
        exec(compile(source, str(file), "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"Plugin '{path}' failed while being imported: {type(error).__name__}: {error}"
        ) from error
    return file


def plugin_sha256(file: Path) -> str:
    """Return the SHA-256 in hex of the code of a loaded plugin, as it was when it ran."""
    return _ran[_plugin_module(file)]


def _require_hash(file: Path, found: str, needed: str) -> None:
    if needed and found != needed:
        raise UserError(
            f"Plugin {str(file)!r} has SHA-256 {found}, but the run was made with {needed}, which "
            "is other code; give plugins=[FILE] to run a file of your choice."
        )


def _plugin_module(file: Path) -> str:
    return f"plugin_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"


_ran: dict[str, str] = {}
"""Name of a plugin's module → SHA-256 of the code."""

MODELS = Registry("model", "models")
LOSSES = Registry("loss", "models")
BACKBONES = Registry("backbone", "models")
DATASETS = Registry("dataset", "dataset")
RUNNERS = Registry("runner", "runners")
OPTIMIZERS = Registry("optimizer", "common.optimizers")
SCHEDULERS = Registry("scheduler", "common.schedules")
