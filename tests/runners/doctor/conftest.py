"""A sweep on a tiny prepared dataset with an encoder whose weights are a few bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import yaml

import main
from common.registry import DATASETS, Entry
from dataset.preparation.prepare import prepare
from dataset.preparation.prepared_dataset import open_prepared
from models.backbones import weight_files
from runners.doctor import cost
from tests.dataset.preparation.toy import Toy, ToyConfig, write_toy

WEIGHTS = b"not really weights"


@dataclasses.dataclass
class Place:
    """A folder with a dataset, weights and a sweep of four runs."""

    root: Path
    capfd: pytest.CaptureFixture

    @property
    def weights(self) -> Path:
        return self.root / "torch" / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"

    def write_sweep(self, overrides: tuple = (), **settings: object) -> Path:
        content = {
            "grid": {"method": ["csq"], "dataset": ["toy"], "bits": [16, 32], "seed": [0, 1]},
            "set": {"backbone": "alexnet", "dataset.root": str(self.root / "toy"), **settings},
            "overrides": list(overrides),
            "output": str(self.root / "runs"),
        }
        file = self.root / "sweep.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    def doctor(self, *words: object) -> tuple[int, dict]:
        """Return the exit code and the JSON of ``doctor SWEEP``; nothing may be written by it."""
        before = self.files()
        code = main.main(["doctor", str(self.root / "sweep.yaml"), *map(str, words), "--json", "-"])
        assert self.files() == before
        return code, json.loads(self.capfd.readouterr().out)

    def files(self) -> set[Path]:
        return set(self.root.rglob("*"))

    def blocking(self, *words: object) -> dict[str, dict]:
        """Return name → finding, of all that keeps the sweep from starting."""
        code, found = self.doctor(*words)
        blocking = [f for f in found["findings"] if f["state"] in ("missing", "differs")]
        assert code == (2 if blocking else 0) and found["can_start"] == (not blocking)
        return {finding["name"]: finding for finding in blocking}


@pytest.fixture
def place(tmp_path, monkeypatch, capfd) -> Place:
    """Return a place where nothing is missing."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cost, "matrix_rate", lambda device: 1e10)
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    monkeypatch.setattr(weight_files, "_hash_of_url", lambda url: (sha256[:8],))
    entry = Entry("toy", open_prepared, ToyConfig, (), (), {}, __file__, "Toy.")
    DATASETS.names()  # discovers the others first
    monkeypatch.setitem(DATASETS._entries, "toy", entry)
    place = Place(tmp_path, capfd)
    place.weights.parent.mkdir(parents=True)
    place.weights.write_bytes(WEIGHTS)
    (tmp_path / "toy").mkdir()
    prepare(Toy(), write_toy(tmp_path / "toy"))
    place.write_sweep()
    return place
