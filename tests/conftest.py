"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.helpers import PIXELS, write_captioned, write_class_folders

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: threads take five times as long


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
