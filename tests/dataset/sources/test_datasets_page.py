"""docs/datasets.md states the figures that the protocols hold data to."""

import pytest

from common.registry import DATASETS
from dataset.preparation.prepared_dataset import PreparedConfig
from tests.helpers import ROOT

PAGE = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
SOURCES = [
    name for name in DATASETS.names() if issubclass(DATASETS.get(name).config, PreparedConfig)
]


@pytest.mark.parametrize("name", SOURCES)
def test_every_protocol_and_its_figures(name):
    source = DATASETS.get(name).config.source
    assert f"`{name}`" in PAGE
    for file in source.files:
        assert f"`{file.name}`" in PAGE or f"{file.name.partition('.')[0]}" in PAGE
    for protocol in source.protocols:
        assert f"`{protocol.name}`" in PAGE
        figures = protocol.published
        if {"query", "train", "database"} <= set(figures):
            counts = " / ".join(f"{figures[part]:,}" for part in ("query", "train", "database"))
            assert counts in PAGE, (protocol.name, counts)
