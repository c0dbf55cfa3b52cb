"""The recipes of papers: the runs of the sweeps below ``configs/sweep/papers``.

A sweep there says under ``paper`` which rows of docs/published.csv its runs are meant to reproduce.
Where a run cannot do what the release does, ``configs/deviations.yaml`` says in which key and why.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import re
from typing import Any

from common.config.layers import CONFIGS, config_names, read_layer
from common.config.run_config import RunConfig
from runners.recipes.describe import describe
from runners.sweeps.sweep import PaperTable, expand, read_sweep, sweep_file
from utils.errors import UserError

DEVIATIONS = CONFIGS / "deviations.yaml"


@dataclasses.dataclass(frozen=True)
class Deviation:
    """One thing that a recipe of ours does otherwise than the release.

    Attributes:
        recipe: pattern of recipes' names, such as ``pixel.*``.
        key: of the recipe; ``rows`` covers everything below it.
        reason: why, in words.
        comparable: whether figures can still be set beside each other, as with another seed.
    """

    recipe: str
    key: str
    reason: str
    comparable: bool = False


@dataclasses.dataclass(frozen=True)
class PaperRun:
    """A run of a paper's sweep.

    Attributes:
        sweep: its name, ``papers/dcmht``.
        name: of the recipe, ``dcmht.flickr25k``.
        config: what the sweep starts.
        table: the section ``paper`` of the sweep.
    """

    sweep: str
    name: str
    config: RunConfig
    table: PaperTable

    @functools.cached_property
    def recipe(self) -> dict[str, Any]:
        """The recipe, see :func:`~runners.recipes.describe.describe`."""
        return describe(self.config)

    @property
    def deviations(self) -> list[Deviation]:
        """What it does otherwise than the release."""
        return [d for d in deviations() if fnmatch.fnmatchcase(self.name, d.recipe)]

    @property
    def set_names(self) -> frozenset[str]:
        """How tables call its data, in plain letters: ``flickr25k``, ``mirflickr``."""
        own = self.config.dataset_name
        split = f"{own}/{_split(self.config)}"
        if split in self.table.sets:
            return frozenset({plain_dataset(self.table.sets[split])})
        return frozenset({plain_dataset(own), plain_dataset(self.table.sets.get(own, own))})


def paper_sweeps() -> list[str]:
    """Return the names of the papers' sweeps."""
    return [name for name in config_names("sweep") if name.startswith("papers/")]


@functools.cache
def paper_runs(sweep: str) -> tuple[PaperRun, ...]:
    """Return the runs of a paper's sweep."""
    path = sweep_file(sweep)
    content = read_sweep(path)
    if content.paper is None:
        raise UserError(f"{path}: section paper is missing; a sweep of papers/ needs it.")
    return tuple(
        PaperRun(sweep, _recipe_name(content.paper, config), config, content.paper)
        for config in expand(content, path)
    )


@functools.cache
def paper_tables() -> dict[str, tuple[str, PaperTable]]:
    """Return a table's name in docs/published.csv → the sweep that repeats it and its section."""
    tables = {}
    for sweep in paper_sweeps():
        table = read_sweep(sweep_file(sweep)).paper
        assert table is not None, sweep
        tables.update({name: (sweep, table) for name in table.published})
    return tables


def _recipe_name(table: PaperTable, config: RunConfig) -> str:
    name, split = config.dataset_name, f"{config.dataset_name}/{_split(config)}"
    chosen = table.sets.get(split, table.sets.get(name, name))
    method = table.methods.get(config.method, config.method)
    return table.recipe.format(method=method, set=chosen)


def _split(config: RunConfig) -> str:
    return str(config.resolved["dataset"].get("split", {}).get("name"))


@functools.cache
def deviations() -> tuple[Deviation, ...]:
    """Return the list of ``configs/deviations.yaml``."""
    entries = read_layer(DEVIATIONS).values["deviations"]
    return tuple(Deviation(**entry) for entry in entries)


def plain_dataset(name: str) -> str:
    """Return a dataset's name in plain letters, as ours are: ``MIRFlickr25K`` → ``flickr25k``.

    A number of classes in brackets is left out, another word in them (``(21,m)``) is not.
    """
    word = re.sub(r"\(\d+( (labels|classes))?\)", "", name).lower()
    word = re.sub(r"[^a-z0-9]", "", word)
    known = {"coco2017": "coco", "cub200": "cub", "cub2002011": "cub", "mirflickr": "flickr25k"}
    word = known.get(word, word)
    return known.get(word.removeprefix("ms"), word.removeprefix("mir").removeprefix("ms"))
