"""The option ``--recipes FILE``: which recipes the sweeps of papers are held against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import ROOT

RECIPES = ROOT.parent / "shared" / "papers" / "recipes.json"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--recipes",
        metavar="FILE",
        help="hold configs/sweep/papers against every entry of FILE (default: ../shared/papers)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "entry" not in metafunc.fixturenames:
        return
    # a default: when a parent folder is run, this file is read after the command line
    given = metafunc.config.getoption("--recipes", default=None)
    file = Path(given or RECIPES)
    if given is None and not file.is_file():
        skip = pytest.mark.skip(reason="../shared/papers/recipes.json is not here")
        metafunc.parametrize("entry", [pytest.param({}, marks=skip)], ids=["absent"])
        return
    try:
        entries: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["recipes"]
    except (OSError, ValueError, KeyError) as error:
        raise pytest.UsageError(f"--recipes {file}: no recipes are read ({error})") from error
    if not entries:
        raise pytest.UsageError(f"--recipes {file}: no entry")
    metafunc.parametrize("entry", entries, ids=[entry["id"] for entry in entries])
