"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import registry
from tests.helpers import PIXELS, ROOT, write_captioned, write_class_folders

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: threads take five times as long


@pytest.fixture(autouse=True)
def _plugins_end_with_their_test() -> Iterator[None]:
    """Take what a test's plugins registered out again, so that no other test meets it."""
    yield
    for table in vars(registry).values():
        if isinstance(table, registry.Registry):
            for name, entry in list(table._entries.items()):
                if not Path(entry.file).is_relative_to(ROOT) and entry.file != "?":
                    del table._entries[name]
    for module in [name for name in sys.modules if name.startswith("plugin_")]:
        del sys.modules[module]


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with toy data and with the cache that the tests on it share."""
    root = tmp_path_factory.mktemp("toy")
    write_class_folders(root / "pictures")
    write_captioned(root / "captioned")
    return root


@pytest.fixture
def pictures(toy_root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Words that choose the toy pictures (single-label, no captions) and the pixels backbone."""
    monkeypatch.setenv("HASHING_CACHE", str(toy_root / "cache"))
    return ["dataset=folder", f"dataset.root={toy_root / 'pictures'}", *PIXELS]


@pytest.fixture
def captioned(toy_root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Words that choose the toy pictures with captions (multi-label) and the pixels backbone."""
    monkeypatch.setenv("HASHING_CACHE", str(toy_root / "cache"))
    root = toy_root / "captioned"
    return ["dataset=folder", f"dataset.root={root}", "dataset.csv=list.csv", *PIXELS]
