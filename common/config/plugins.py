"""Which plugins run: those that the user names, and no others.

A plugin is code. It runs when the command line names it, or a YAML file that the user gives. The
``config.yaml`` of a run folder is *received*: the folder may come from elsewhere, so what it names
does not run by itself, whatever command reads it. A layer is received by its content (the whole
configuration of a run) or by its name (``config.yaml``), and so is every file that it chooses.

A run's ``config.yaml`` has for each plugin ``file`` and ``sha256``; older ones have the file alone.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from common import registry
from utils.errors import UserError

log = logging.getLogger("hashing")
Received = Literal["refuse", "load", "skip"]
"""What is done with plugins of received layers: an error, they are shown and run, or nothing."""


class Source(Protocol):
    """What is asked of a layer of settings."""

    @property
    def source(self) -> str:
        """Its name in messages."""
        ...

    @property
    def values(self) -> Mapping[str, Any]:
        """Its settings."""
        ...

    @property
    def file(self) -> Path | None:
        """The YAML that it was read from."""
        ...

    @property
    def is_received(self) -> bool:
        """Whether it may come from elsewhere."""
        ...


def on_trust(trust: bool) -> Received:
    """Return what ``--trust``, given or not, means for the plugins of received layers."""
    return "load" if trust else "refuse"


@dataclasses.dataclass(frozen=True)
class Plugin:
    """A Python file, and the SHA-256 in hex of the code that ran; "" where none is recorded."""

    file: str
    sha256: str = ""

    def __str__(self) -> str:
        known = self.sha256 and f"SHA-256 {self.sha256}"
        return f"{self.file!r} ({known or 'no hash recorded'})"

    @property
    def name(self) -> str:
        """The file's name without folders."""
        return Path(self.file).name


def named_plugins(values: Mapping[str, Any], source: str) -> list[Plugin]:
    """Return what ``plugins`` of a layer names; nothing is opened.

    Raises:
        UserError: it is neither a file nor a list of files; names ``source``.
    """
    given = values.get("plugins") or []
    entries = given if isinstance(given, list) else [given]
    found = []
    for entry in entries:
        entry = {"file": entry} if isinstance(entry, str) else entry
        if not isinstance(entry, Mapping) or not {"file"} <= set(entry) <= {"file", "sha256"}:
            entry = {}
        words = [entry.get("file"), entry.get("sha256", "")]
        if not all(isinstance(word, str) for word in words):
            raise UserError(
                f"{source}: plugins={given!r} is not accepted; a list of Python files is "
                "needed: plugins=[file.py]."
            )
        found.append(Plugin(*words))
    return found


class PluginLoader:
    """Loads the plugins of layers; those that the user typed go first."""

    def __init__(self, received: Received) -> None:
        """Nothing is loaded yet."""
        self.received = received
        self._typed: set[str] = set()  # SHA-256 of what the user's own layers have loaded

    def load(self, layer: Source) -> list[dict[str, str]]:
        """Load the plugins of a layer, and return their full paths and hashes.

        A path is relative to the current folder; if there is no such file, to the folder of the
        YAML.

        Raises:
            UserError: a plugin does not load, or one of a received layer must not or has changed.
        """
        plugins = named_plugins(layer.values, layer.source)
        if layer.is_received:
            plugins = self._of_received(layer, plugins)
        loaded = [_load(plugin, layer) for plugin in plugins]
        if not layer.is_received:
            self._typed |= {plugin.sha256 for plugin in loaded}
        return [dataclasses.asdict(plugin) for plugin in loaded]

    def _of_received(self, layer: Source, plugins: list[Plugin]) -> list[Plugin]:
        """Return those plugins of a received layer that may run."""
        plugins = [plugin for plugin in plugins if plugin.sha256 not in self._typed]
        if self.received == "skip" or not plugins:
            return []
        if self.received == "load":
            return plugins
        listed = " and ".join(map(str, plugins))
        if self._typed:
            log.warning(
                "%s was made with %s; it is not run, for plugins=[...] names other code.",
                layer.source, listed,
            )  # fmt: skip
            return []
        raise UserError(
            f"'{layer.source}' needs the plugin {listed}: this is the configuration of a run, "
            "which may come from elsewhere, so the code that it names does not run by itself; look "
            "at that file, then give --trust to run it, or plugins=[FILE] to run a file of yours."
        )


def _load(plugin: Plugin, layer: Source) -> Plugin:
    path = Path(plugin.file).expanduser()
    if layer.file is not None and not path.is_file() and (layer.file.parent / path).is_file():
        path = layer.file.parent / path
    if plugin.sha256 and not path.is_file():
        raise UserError(
            f"The plugin {plugin} does not exist; give plugins=[FILE] with a copy of it."
        )
    named = str(path) if path.is_file() else plugin.file  # as the user wrote it, in the message
    file = registry.load_plugin(named, plugin.sha256, told=layer.is_received)
    return Plugin(str(file), registry.plugin_sha256(file))
