"""``main.py list`` leaves out names whose files lie outside of the project and are missing."""

import json

import pytest

import main
from common.config import layers
from common.config.run_config import compose
from runners.commands.list import is_usable, listing

OUTSIDE = {
    "dataset": {
        "far": "{name: folder, root: ../elsewhere/far, class_attributes: ../attributes}",
        "near": "{name: folder, root: data/near}",  # prepare may put it there
        "plain": "plain",
    },
    "backbone": {
        "far_weights": "{name: timm, model: resnet18, weights: ../elsewhere/weights.safetensors}",
        "far_model": "{name: open_clip, model: ../elsewhere/m.json, weights: openai}",
        "hub": "{name: blip, weights: Salesforce/blip-itm-base-coco}",
    },
}
SWEEPS = {
    "grid": "grid: {dataset: [near, far], bits: [8]}",
    "grids": "grid: [{dataset: [near]}, {dataset: [far]}]",
    "set": "grid: {dataset: [near]}\nset: {backbone: far_weights}",
    "override": "grid: {bits: [8]}\noverrides: [{where: {bits: 8}, set: {backbone: far_model}}]",
    "fine": "grid: {dataset: [near, plain, folder, mine.yaml], backbone: [hub]}",
    "faulty": "grid: [",
    "odd": "grid: 3\nset: [1]\noverrides: {dataset: 4}",
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a folder beside which ``../elsewhere`` may be, with configurations that name it."""
    configs = tmp_path / "project" / "configs"
    for group, sections in OUTSIDE.items():
        (configs / group).mkdir(parents=True)
        for name, section in sections.items():
            text = f"# {name}.\n{group}: {section}\n"
            (configs / group / f"{name}.yaml").write_text(text, encoding="utf-8")
    (configs / "sweep").mkdir()
    for name, text in SWEEPS.items():
        (configs / "sweep" / f"{name}.yaml").write_text(f"# {name}.\n{text}\n", encoding="utf-8")
    monkeypatch.setattr(layers, "CONFIGS", configs)
    return configs.parent


def fill(project):
    elsewhere = project.parent / "elsewhere"
    (elsewhere / "far").mkdir(parents=True)
    for name in ("weights.safetensors", "m.json"):
        (elsewhere / name).touch()


def listed(capsys, kind):
    assert main.main(["list", kind, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)[kind]
    return {entry["name"] for entry in entries if "file" in entry}


def test_names_whose_files_are_missing_are_left_out(project, capsys):
    assert listed(capsys, "datasets") == {"near", "plain"}
    assert listed(capsys, "backbones") == {"hub"}
    assert listed(capsys, "sweeps") == {"fine", "faulty", "odd"}
    assert main.main(["list"]) == 0
    shown = capsys.readouterr().out
    assert "\n  near" in shown and "\n  far" not in shown


def test_names_whose_files_are_there_are_listed(project, capsys):
    fill(project)
    assert listed(capsys, "datasets") == set(OUTSIDE["dataset"])
    assert listed(capsys, "backbones") == set(OUTSIDE["backbone"])
    assert listed(capsys, "sweeps") == set(SWEEPS)


def test_a_full_path_is_outside_and_a_link_inside_is_not(project, tmp_path):
    folder = project / "configs" / "dataset"
    (folder / "full.yaml").write_text(f"dataset: {{name: folder, root: {tmp_path / 'disk'}}}")
    (project / "data").symlink_to(tmp_path / "no such disk")
    assert not is_usable("dataset", "full")
    assert is_usable("dataset", "near")
    (tmp_path / "disk").mkdir()
    assert is_usable("dataset", "full")


def test_the_listing_itself_has_every_name(project):
    tables = listing(["datasets", "backbones", "sweeps"])
    names = {entry["name"] for entries in tables.values() for entry in entries}
    assert names >= {*OUTSIDE["dataset"], *OUTSIDE["backbone"], *SWEEPS}


def test_what_is_left_out_is_used_by_name_as_before(capsys, monkeypatch):
    words = ["method=csq", "dataset=flickr8k", "backbone=lite0"]
    before = compose(words)
    monkeypatch.setattr(
        "runners.commands.list._is_missing", lambda project, path: "shared" in str(path)
    )
    names = {kind: listed(capsys, kind) for kind in ("datasets", "backbones", "sweeps")}
    assert not {"flickr8k", "awa2_mini32", "cifar10_subset"} & names["datasets"]
    assert not {"lite0", "lit_mini"} & names["backbones"]
    assert not {"flickr8k", "cifar10_image", "zeroshot"} & names["sweeps"]
    assert "quickstart" in names["sweeps"]
    assert "clip_mini" in names["backbones"]
    assert compose(words) == before
