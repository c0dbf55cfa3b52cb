"""What the documents say can be typed is typed here."""

from __future__ import annotations

import re

import pytest
import yaml

from common.config.layers import config_names
from tests.helpers import ROOT


def code_blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_readme_names_every_method():
    table = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in config_names("method") if f"`{name}`" not in table] == []


@pytest.mark.parametrize("document", ["README.md"])
def test_sweeps_in_documents_are_valid(document, tmp_path):
    from runners.sweeps.sweep import expand, read_sweep

    blocks = code_blocks(document, "yaml")
    assert blocks
    for block in blocks:
        file = tmp_path / "sweep.yaml"
        file.write_text(block, encoding="utf-8")
        sweep = read_sweep(file)
        points = yaml.safe_load(block)["grid"]
        assert len(expand(sweep, file)) <= len(points["method"]) * len(points["bits"]) * 3


PATH = re.compile(r"(?<![\w./{-])((?:common|dataset|models|runners|utils)/[\w./-]*\w)(?![\w<])")
SAID = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *(ROOT / "configs").rglob("*.yaml")]
SAID += [
    f for p in ("common", "dataset", "models", "runners", "utils") for f in (ROOT / p).rglob("*.py")
]


def test_every_path_in_the_code_that_is_named_exists():
    """Changelogs aside, which tell of former ones."""
    gone = [
        f"{file.relative_to(ROOT)}: {path}"
        for file in SAID
        if file.name.lower() != "changelog.md"
        for path in PATH.findall(file.read_text(encoding="utf-8"))
        if not (ROOT / path).exists()
    ]
    assert gone == []
