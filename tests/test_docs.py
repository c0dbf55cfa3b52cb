"""What the documents say can be typed is typed here."""

from __future__ import annotations

import re

import pytest
import yaml

import main
from common.layers import config_names
from common.run_store import RunFolder
from tests.helpers import ROOT


def code_blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The method that CONTRIBUTING works through, as a file outside the repository."""
    tmp_path = tmp_path_factory.mktemp("plugin")
    (source,) = code_blocks("CONTRIBUTING.md", "python")
    plugin = tmp_path / "cosine_pair.py"
    plugin.write_text(source, encoding="utf-8")
    (recipe,) = code_blocks("CONTRIBUTING.md", "yaml")
    method = tmp_path / "cosine_pair.yaml"
    method.write_text(recipe, encoding="utf-8")
    return plugin, method


def test_the_worked_example_is_short_and_sound(example, capsys):
    plugin, _ = example
    assert len(plugin.read_text().splitlines()) <= 40
    assert main.main(["check", str(plugin)]) == 0
    assert capsys.readouterr().out.count("sound") == 8


def test_the_worked_example_trains(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    plugin, method = example
    words = [
        f"method={method}", "dataset=creatures_image", "dataset.rows=240", "dataset.split.query=2",
        "dataset.split.train=6", "backbone=pixels", "backbone.size=16", "bits=16",
        "runner.epochs=2", f"output={tmp_path / 'runs'}", f"plugins=[{plugin}]",
    ]  # fmt: skip
    assert main.main(["train", *words]) == 0
    folder = RunFolder(capsys.readouterr().out.strip().splitlines()[-1])
    assert folder.is_done and folder.metrics()["run"]["method"] == "cosine_pair"


def test_the_readme_names_every_method():
    table = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in config_names("method") if f"`{name}`" not in table] == []


@pytest.mark.parametrize("document", ["README.md"])
def test_sweeps_in_documents_are_valid(document, tmp_path):
    from runners.sweep import expand, read_sweep

    blocks = code_blocks(document, "yaml")
    assert blocks
    for block in blocks:
        file = tmp_path / "sweep.yaml"
        file.write_text(block, encoding="utf-8")
        sweep = read_sweep(file)
        points = yaml.safe_load(block)["grid"]
        assert len(expand(sweep, file)) <= len(points["method"]) * len(points["bits"]) * 3
