"""What is missing is told once, with what gets it; exit code 0 only when a sweep can start."""

from __future__ import annotations

import importlib.metadata
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import main
from common.registry import DATASETS
from dataset.preparation.index import index_file
from dataset.preparation.prepare import prepare
from runners.doctor import cost
from tests.dataset.preparation.toy import Toy
from tests.runners.doctor.conftest import WEIGHTS


def by_name(found, group):
    return {f["name"]: f for f in found["findings"] if f["group"] == group}


def test_all_is_here(place):
    code, found = place.doctor()
    assert code == 0 and found["can_start"]
    assert found["sentence"] == f"{place.root / 'sweep.yaml'} can start."
    assert found["runs"] == {"to do": 4}
    (weights,) = by_name(found, "weights").values()
    assert weights["state"] == "ok" and weights["runs"] == 4
    data = by_name(found, "data")["toy, split per_class"]
    assert data["found"].startswith("8 train, 4 query, 20 database rows, as published")
    assert found["estimated_s"] > 0


def test_weights_are_missing(place):
    place.weights.unlink()
    (finding,) = place.blocking().values()
    assert finding["name"] == "alexnet: alexnet-owt-7be5be79.pth" and finding["runs"] == 4
    assert finding["get"] == (
        f"curl -L --create-dirs -o {place.weights} "
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
    )


def test_cached_weights_are_other_ones(place):
    place.weights.write_bytes(b"cut short")
    (finding,) = place.blocking().values()
    assert finding["state"] == "differs"
    assert "has SHA-256" in finding["found"] and "recorded is" in finding["found"]
    assert finding["get"].startswith("remove it, then: curl")


def test_a_chosen_file_of_another_hash_is_told_and_can_start(place):
    file = place.root / "mine.pth"
    file.write_bytes(b"other weights")
    code, found = place.doctor(f"backbone.weights={file}")
    (finding,) = by_name(found, "weights").values()
    assert code == 0 and finding["state"] == "warning" and "recorded is" in finding["found"]
    file.write_bytes(WEIGHTS)
    code, found = place.doctor(f"backbone.weights={file}")
    assert by_name(found, "weights")["alexnet: mine.pth"]["state"] == "ok"
    file.unlink()
    assert place.blocking(f"backbone.weights={file}")["alexnet: mine.pth"]["runs"] == 4


def test_the_dataset_is_not_prepared(place):
    index_file(place.root / "toy", "toy").unlink()
    finding = place.blocking()["toy"]
    assert "not indexed yet" in finding["found"]
    assert finding["get"] == f"python main.py prepare toy --root {place.root / 'toy'}"
    shutil.rmtree(place.root / "toy")
    finding = place.blocking()["toy"]
    assert "pictures.zip, rows.txt, attributes.txt not there" in finding["found"]
    assert finding["get"].startswith("put rows.txt, attributes.txt from https://example.org in ")
    assert finding["get"].endswith(f"prepare toy --root {place.root / 'toy'} --download")


def test_another_count_is_told_with_both_numbers(place):
    table = place.root / "toy" / "meta" / "rows.txt"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    prepare(Toy(), place.root / "toy")
    (finding,) = place.blocking().values()
    assert finding["state"] == "differs"
    assert "rows in all 23, published 24" in finding["found"]
    assert "database rows 19, published 20" in finding["found"]
    assert "verify toy" in finding["get"]


def test_numbers_that_the_user_has_set_are_no_fault(place):
    place.write_sweep(**{"dataset.split.train": 1})
    code, found = place.doctor()
    finding = by_name(found, "data")["toy, split per_class"]
    assert code == 0 and finding["found"].startswith("4 train, 4 query, 20 database rows")


def test_published_lists_are_missing(place):
    place.write_sweep(**{"dataset.split.name": "lists"})
    (finding,) = place.blocking().values()
    assert finding["name"] == "toy, lists of split lists"
    folder = place.root / "toy" / "lists"
    assert finding["get"] == f"put train.txt, test.txt (lists) in {folder}"


@pytest.mark.parametrize("prepared_again", [False, True])
def test_pictures_are_gone(place, prepared_again):
    (place.root / "toy" / "pictures" / "5.jpg").unlink()
    if prepared_again:
        prepare(Toy(), place.root / "toy")
    finding = place.blocking()["toy, pictures"]
    words = "1 of 24 were not there when" if prepared_again else "5.jpg first"
    assert words in finding["found"]


def test_generated_pictures(place):
    folder = place.root / "painted"
    place.write_sweep([{"where": {"bits": 32}, "set": {"method": "pzsh"}}])
    code, found = place.doctor()
    warning = by_name(found, "data")["pzsh on toy"]
    assert code == 0 and warning["state"] == "warning" and warning["runs"] == 2
    assert "data.generated is not set" in warning["found"]
    finding = place.blocking(f"data.generated={folder}")["generated, toy"]
    assert finding["get"].startswith("python main.py generate toy --method pzsh")
    folder.mkdir()
    finding = place.blocking(f"data.generated={folder}")[f"generated, {folder}"]
    assert finding["state"] == "differs" and "pictures.jsonl" in finding["found"]
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "0.png")
    line = {"class": "ant", "number": 0, "file": "0.png", "prompt": "an ant"}
    (folder / "pictures.jsonl").write_text(json.dumps(line) + "\n")
    finding = place.blocking(f"data.generated={folder}")[f"generated, {folder}"]
    assert "train rows have no 'pseudo' input" in finding["found"]


def test_a_model_whose_modality_is_not_in_the_dataset(place):
    place.write_sweep(method="dcmht")
    assert (
        "has no text" in place.blocking("method=dcmht", "backbone=pixels")["dcmht on toy"]["found"]
    )


def test_the_text_encoder_of_a_model(place, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place.root / "hub"))
    words = ("method=pixel", "model.text.weights=bert-base-uncased")
    finding = place.blocking(*words)["alexnet: bert-base-uncased"]
    assert finding["get"].startswith("hf download bert-base-uncased config.json")


def test_the_disk_is_full(place, monkeypatch):
    monkeypatch.setattr(cost, "free_space", lambda path: 1000)
    finding = place.blocking()["disk"]
    assert "1.0 kB free" in finding["found"] and "HASHING_CACHE" in finding["get"]


def test_a_gpu_that_is_not_there(place, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "finds no CUDA GPU" in place.blocking("runner.device=cuda")["device"]["found"]
    assert "needs a GPU" in place.blocking("runner.precision=fp16")["device"]["found"]


def test_everything_is_missing_and_told_once(place, capfd):
    shutil.rmtree(place.root / "toy")
    place.weights.unlink()
    code = main.main(["doctor", str(place.root / "sweep.yaml")])
    out = capfd.readouterr().out
    assert code == 2 and "\x1b" not in out
    assert out.splitlines()[-1].endswith("cannot start: 2 things are missing.")
    lines = out[out.index("What is missing") :].splitlines()[1:3]
    assert "prepare toy" in lines[1] and "curl" in lines[0]
    assert (
        len({line.index("  " + word) for line, word in zip(lines, ("curl", "put"), strict=True)})
        == 1
    )


def test_json_in_a_file_and_the_table_on_the_screen(place, capfd):
    file = place.root / "found.json"
    code = main.main(["doctor", str(place.root / "sweep.yaml"), "--json", str(file)])
    assert code == 0 and json.loads(file.read_text())["can_start"]
    assert capfd.readouterr().out.splitlines()[-1].endswith("can start.")


def test_a_sweep_that_is_done_needs_nothing(place, monkeypatch):
    monkeypatch.setattr(
        "common.storage.run_folder.RunFolder.status", lambda self: {"state": "done"}
    )
    monkeypatch.setattr("common.storage.run_folder.RunFolder.damage", lambda self: None)
    place.weights.unlink()
    code, found = place.doctor()
    assert code == 0 and found["runs"] == {"done": 4} and found["sentence"].endswith("is done.")


def test_the_machine_alone(place, capfd, monkeypatch):
    monkeypatch.chdir(place.root)
    before = place.files()
    assert main.main(["doctor", "--json", "-"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert place.files() == before
    assert by_name(found, "data").keys() >= {"coco", "flickr25k", "nuswide", "cub"}
    assert by_name(found, "weights")["alexnet: alexnet-owt-7be5be79.pth"]["state"] == "ok"
    assert by_name(found, "weights")["clip_vit_b32: ViT-B-32.pt"]["state"] == "info"


def test_packages_come_first(place, monkeypatch):
    def version(name):
        if name in ("torch", "timm"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    (finding,) = place.blocking().values()
    assert finding["found"] == "2 of 19 are not installed: torch, timm"
    assert finding["get"] == "pip install -r requirements.txt"


def test_pictures_that_are_skipped_do_not_matter(place):
    (place.root / "toy" / "pictures" / "5.jpg").unlink()
    assert place.blocking("data.on_bad_image=skip") == {}


@pytest.mark.parametrize("words", [("bits=32",), ("no_such_sweep",)])
def test_what_is_no_sweep(words, capfd):
    assert main.main(["doctor", *words]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("error: ") and words[0] in err


def test_the_toy_leaves_the_registry():
    assert "toy" not in DATASETS.names()
