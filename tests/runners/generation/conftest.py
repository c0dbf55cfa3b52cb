"""Tiny models, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runners.generation import tiny


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``sd``, ``other`` (another seed), ``blip`` and ``adapter``."""
    root = tmp_path_factory.mktemp("models")
    tiny.write_pipeline(root / "sd")
    tiny.write_pipeline(root / "other", seed=1)
    tiny.write_caption_model(root / "blip")
    tiny.write_adapter(root / "adapter")
    return root
