"""No command that is shown would train the small encoder of drawings on anything else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import main
from common.config.run_config import RunConfig, compose
from runners.sweeps.sweep import expand, read_sweep, sweep_file
from tests.docs.test_guides import blocks, is_placeholder, registered_as_before, words_of
from tests.helpers import ROOT

FOLDERS = ("common", "dataset", "models", "runners", "utils", "docs")
FILES = sorted(
    [
        *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").rglob("*.yaml"),
        *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")),
    ]
)  # fmt: skip
COMMAND = re.compile(r"main\.py ((?:train|sweep) [^`\n|]+)(?!.*\nerror:)")


def shown(text: str) -> list[str]:
    """Return the ``train`` and ``sweep`` commands of a file, but those that it shows refused."""
    found = COMMAND.findall(text.replace("\\\n", " "))
    return [re.split(r"\s{2,}\(|\)$", command)[0].strip() for command in dict.fromkeys(found)]


def runs_of(command: str) -> list[RunConfig]:
    """Return the runs that a command does; those of a run folder to come are none."""
    options = main._parse(words_of(command))
    settings = [word for word in options.settings if not is_placeholder(word.partition("=")[2])]
    if command.startswith("sweep"):
        if is_placeholder(options.sweep):
            return []
        path = sweep_file(options.sweep)
        return expand(read_sweep(path), path, settings)
    return [] if options.config else [compose(settings)]


CASES = [
    pytest.param(file, id=str(file.relative_to(ROOT)))
    for file in FILES
    if shown(file.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("file", CASES)
def test_the_small_encoder_is_for_drawings(file: Path, tmp_path, monkeypatch):
    text = file.read_text(encoding="utf-8")
    for block in blocks(text):
        if block.file is not None and file.suffix == ".md":
            (tmp_path / block.file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.file).write_text(block.content, encoding="utf-8")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    for command in shown(text):
        with registered_as_before():
            for run in runs_of(command):
                small = "clip_mini" in str(run.resolved["backbone"])
                assert small <= run.dataset_name.startswith("creatures_"), command


def test_commands_are_found_everywhere():
    suffixes = {case.values[0].suffix for case in CASES}
    assert suffixes >= {".md", ".yaml"} and len(CASES) > 60
    text = "(or: python main.py sweep x)\n$ python main.py train a=b  (c)\nmain.py train a\nerror:"
    assert shown(text) == ["sweep x", "train a=b"]
