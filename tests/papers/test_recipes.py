"""The sweeps of papers do what the releases do, key by key."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from common.config import schema
from runners.recipes.papers import deviations, paper_runs, paper_sweeps
from tests.papers.harness import declared, disagreements


def test_every_key_of_a_recipe_agrees_or_is_declared(entry):
    assert disagreements(entry) == []


def _leaves(nested: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in nested.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key)


def test_another_value_is_noticed(entry):
    """Every key of the entry, changed, must fail: none is passed over."""
    passed = {d.key for d in declared(entry)}
    for path in _leaves(entry["recipe"]):
        changed = copy.deepcopy(entry)
        inner = changed["recipe"]
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = "another value"
        name = ".".join(path)
        if any(name == key or name.startswith(f"{key}.") for key in passed):
            continue
        assert disagreements(changed), name


def test_an_unknown_key_is_noticed(entry):
    changed = copy.deepcopy(entry)
    changed["recipe"]["a_key_of_tomorrow"] = 3
    assert any("a_key_of_tomorrow is not compared" in line for line in disagreements(changed))


@pytest.mark.parametrize("sweep", paper_sweeps())
def test_recipes_have_names_of_their_own(sweep):
    names = [(run.name, run.config.bits, run.config.seed) for run in paper_runs(sweep)]
    assert len(set(names)) == len(names)
    keys = set(schema.flat(paper_runs(sweep)[0].recipe))
    for unknown in paper_runs(sweep)[0].table.unknown:
        assert any(key == unknown or key.startswith(f"{unknown}.") for key in keys), unknown


def test_deviations_name_recipes_and_reasons():
    names = {run.name for sweep in paper_sweeps() for run in paper_runs(sweep)}
    import fnmatch

    for deviation in deviations():
        assert fnmatch.filter(names, deviation.recipe), deviation
        assert len(deviation.reason) > 20, deviation
