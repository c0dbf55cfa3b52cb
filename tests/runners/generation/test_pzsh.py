"""``generate --method pzsh``: pictures of classes, by diffusion or the creatures' own drawing."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import main
from common.config.run_config import compose
from dataset.creatures.world import KINDS
from runners.generation import base, pzsh
from runners.generation.image_model import DiffusionImageGenerator, image_seed
from runners.generation.options import Options
from runners.generation.output_folder import Lines
from runners.inputs.loading import load_dataset
from tests.runners.generation.tiny import SIDE
from utils.errors import UserError

ZEROSHOT = ["creatures_zeroshot", "dataset.rows=250", "dataset.split.rule=seen_unseen",
            "dataset.split.query=1", "dataset.split.train=2"]  # fmt: skip
UNSEEN = list(KINDS)[40:]


@pytest.fixture(autouse=True)
def cache(toy_root, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(toy_root / "cache"))


@pytest.fixture
def generate(models, tmp_path, capfd):
    """Return a function that runs the command and returns (exit code, output)."""

    def run(*words: str, model: str = "creatures", data=ZEROSHOT, out="out") -> tuple[int, str]:
        command = ["generate", *data, "--method", "pzsh", "--out", str(tmp_path / out)]
        if model:
            command += ["--model", model if model == "creatures" else str(models / model)]
        code = main.main([*command, "--device", "cpu", "--steps", "2", *words])
        output = capfd.readouterr()
        assert "Traceback" not in output.err
        return code, output.out if code == 0 else output.err.strip().splitlines()[-1]

    return run


def entries(out: Path) -> dict[str, dict]:
    lines = (out / "pictures.jsonl").read_text().splitlines()
    assert len({json.loads(line)["file"] for line in lines}) == len(lines)
    return {entry["file"]: entry for entry in map(json.loads, lines)}


def pictures(out: Path) -> dict[str, bytes]:
    files = (f for f in out.rglob("*.png") if f.parent.name != "contact_sheets")
    return {f.relative_to(out).as_posix(): f.read_bytes() for f in files}


def test_unseen_creatures(generate, tmp_path):
    code, output = generate("--count", "unseen=3")
    out = tmp_path / "out"
    assert code == 0 and output.strip().splitlines()[-1] == str(out)
    files = pictures(out)
    assert set(files) == {f"{name}/{n:05d}.png" for name in UNSEEN for n in range(3)}
    assert len(set(files.values())) == len(files)
    listed = entries(out)
    assert set(listed) == set(files)
    name = UNSEEN[3]
    assert listed[f"{name}/00002.png"] == {
        "file": f"{name}/00002.png", "class": name, "number": 2, "prompt": f"A photo of a {name}",
        "seed": image_seed(42, ("class", name, 2)), "model": "creatures",
    }  # fmt: skip
    assert {f.stem for f in (out / "contact_sheets").iterdir()} == set(UNSEEN)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["parts"]["pictures"]["done"] == 30
    assert manifest["parts"]["pictures"]["folders"] == {name: name for name in UNSEEN}


def test_a_creature_is_drawn_from_its_attributes_with_its_seed(generate, tmp_path):

    from dataset.creatures.views import render_class_images

    generate("--count", f"{UNSEEN[0]}=2")
    seed = image_seed(42, ("class", UNSEEN[0], 1))
    expected = render_class_images(KINDS[UNSEEN[0]].attributes(), 1, seed)[0]
    picture = Image.open(tmp_path / "out" / UNSEEN[0] / "00001.png")
    assert np.array_equal(np.asarray(picture), expected)


def test_more_later_and_after_a_kill(generate, tmp_path, monkeypatch):
    generate("--count", "unseen=5", out="whole")
    out = tmp_path / "out"
    generate("--count", "unseen=2")
    (out / UNSEEN[0] / "00001.png").unlink()  # lost with its line kept
    lines = (out / "pictures.jsonl").read_bytes()
    (out / "pictures.jsonl").write_bytes(lines[:-40])  # saved, and killed before its line
    generate("--count", "unseen=5")
    assert pictures(out) == pictures(tmp_path / "whole")
    assert entries(out) == entries(tmp_path / "whole")
    monkeypatch.setattr(base, "save_image", lambda *_: pytest.fail("generated again"))
    assert generate("--count", "unseen=5")[0] == 0


def _killed_at(number: int, words: tuple[str, ...], target: object, name: str) -> None:
    """Run the command in a process that is killed, hard, at the call ``number`` of a function."""
    child = os.fork()
    if child == 0:  # whatever happens, pytest does not go on in here
        try:
            real, calls = getattr(target, name), iter(range(number + 1))

            def dying(*args, **named):
                if next(calls) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **named)

            setattr(target, name, dying)
            main.main(list(words))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("target", "name"), [(Image.Image, "save"), (Lines, "append")])
def test_killed_at_a_random_picture(target, name, seed, generate, tmp_path):
    """Before a picture, and between pictures and their lines; twice in a row."""
    rng = np.random.default_rng([seed, len(name)])
    out = tmp_path / "out"
    words = ("--count", "unseen=2")
    generate(*words, out="whole")
    whole, listed = pictures(tmp_path / "whole"), entries(tmp_path / "whole")
    command = ["generate", *ZEROSHOT, "--method", "pzsh", "--out", str(out), "--model", "creatures",
             "--device", "cpu", *words]  # fmt: skip
    last = len(whole) // 2 - 1 if name == "save" else 0
    for _ in range(2):
        _killed_at(int(rng.integers(0, last + 1)), tuple(command), target, name)
    there = {file: (out / file).stat().st_mtime_ns for file in pictures(out)}
    assert all(whole[file] == content for file, content in pictures(out).items())
    assert len(there) < len(whole)
    assert generate(*words)[0] == 0
    assert pictures(out) == whole and entries(out) == listed
    assert all((out / file).stat().st_mtime_ns == time for file, time in there.items()), "redone"
    assert [p for p in out.rglob(".*") if p.name != ".lock"] == []


def test_as_many_as_there_are_training_rows(generate, tmp_path):
    generate("--count", "seen=each")
    assert len(pictures(tmp_path / "out")) == 80  # two rows of each of 40 classes
    assert "Nothing to paint" in generate("--count", "unseen=each", out="none")[1]


def test_a_wrong_encoder_is_refused_before_images_are_generated(generate, tmp_path, monkeypatch):
    monkeypatch.setattr(base, "save_image", lambda *_: pytest.fail("generated"))
    words = ("backbone.name=blip", "backbone.config=null", "backbone.weights=none/there.pth")
    code, output = generate("--features", data=[*ZEROSHOT, *words])
    assert code == 2 and "'none/there.pth' does not exist" in output
    assert not (tmp_path / "out").exists()


def test_another_seed_or_model_is_refused(generate, tmp_path):
    generate("--count", "unseen=1")
    for words, model in ((("--seed", "1"), "creatures"), ((), "sd")):
        code, output = generate("--count", "unseen=2", *words, model=model)
        assert code == 2 and "holds pictures with" in output
    assert len(pictures(tmp_path / "out")) == 10


def test_by_diffusion(generate, tmp_path):
    code, _ = generate(
        "--count", "2", "--limit", "1", "--count", "seen=0", "--prompt",
        "A photo of a <attributes> <label>", "--batch-size", "4", model="sd",
    )  # fmt: skip
    out = tmp_path / "out"
    assert code == 0 and len(pictures(out)) == 10
    entry = entries(out)[f"{UNSEEN[1]}/00000.png"]
    uvo = "tall body", "no legs", "pointed ears", "one horn"
    assert entry["prompt"].startswith("A photo of a ") and entry["prompt"].endswith(UNSEEN[1])
    assert UNSEEN[0] == "uvo" and " ".join(uvo) in entries(out)["uvo/00000.png"]["prompt"]
    with Image.open(out / "uvo" / "00000.png") as picture:
        assert picture.size == (SIDE, SIDE)


@pytest.mark.parametrize("condition", ["image", "mosaic"])
def test_pictures_of_seen_classes_start_from_training_pictures(
    condition, generate, tmp_path, monkeypatch, models
):
    dataset = load_dataset(compose([f"dataset={ZEROSHOT[0]}", *ZEROSHOT[1:]]))
    name = dataset.class_names[2]
    train = [int(r) for r in dataset.split.train if dataset.labels[r, 2]]
    started: list[np.ndarray] = []

    def note(self, requests, real=DiffusionImageGenerator._batch):
        started.extend(p.source() for p in requests)
        return real(self, requests)

    monkeypatch.setattr(DiffusionImageGenerator, "_batch", note)
    words = ("--count", f"{name}=3", "--condition", condition)
    words += ("--adapter", str(models / "adapter")) if condition == "mosaic" else ()
    assert generate(*words, model="sd")[0] == 0
    rows = [entries(tmp_path / "out")[f"{name}/{n:05d}.png"]["row"] for n in range(3)]
    assert rows == [train[0], train[1], train[0]]
    for row, picture in zip(rows, started, strict=True):
        assert np.array_equal(picture, dataset.images.decode(row))


def test_captions_in_prompts(generate, captioned, tmp_path):
    data = ["folder", *captioned[1:3], "dataset.split.rule=per_class", "dataset.split.query=2"]
    words = ("--count", "bee=2", "--prompt", "<label>: <caption>")
    assert generate(*words, model="sd", data=data)[0] == 0
    dataset = load_dataset(compose([f"dataset={data[0]}", *data[1:]]))
    for entry in entries(tmp_path / "out").values():
        assert entry["prompt"] == f"bee: {dataset.texts[entry['row']][0]}"
        assert dataset.labels[entry["row"], 1] == 1 and entry["row"] in dataset.split.train


@pytest.mark.parametrize(
    ("words", "model", "message"),
    [
        ((), "", "generate --method pzsh needs --model PATH"),
        (("--prompt", "a photo"), "sd", "--prompt 'a photo' has no <label>"),
        (("--prompt", "<label> <colour>"), "sd", "has <colour>, which nothing fills"),
        (("--prompt", "<label> <caption>"), "sd", "--prompt has <caption>, and dataset"),
        (("--count", "zebra=3"), "sd", "has no class 'zebra'."),
        (("--count", "mobit=3"), "sd", "has no class 'mobit'. Did you mean 'mobbit'?"),
        (("--count", "unseen=many"), "sd", "--count 'unseen=many' is not understood; a number"),
        (("--count", "unseen=0"), "sd", "Nothing to paint"),
        (("--captioner", "x"), "sd", "--captioner belongs to --method vtph"),
        (("--condition", "image"), "sd", "does not have a training picture to start from"),
        (("--condition", "image"), "creatures", "--model creatures starts from nothing"),
        ((), "blip", "is not a text-to-image model"),
    ],
)
def test_bad_input(words, model, message, generate, tmp_path):
    code, output = generate(*words, model=model)
    assert code == 2 and message in output
    assert not (tmp_path / "out").exists()


def test_datasets_without_what_is_needed(generate, captioned):
    data = ["folder", *captioned[1:3]]
    assert "Nothing to paint: dataset 'folder' has 0 unseen" in generate(data=data, model="sd")[1]
    assert "draws classes from the attributes" in generate("--count", "1", data=data)[1]
    code, output = generate(
        "--count", "1", "--prompt", "<attributes> <label>", data=data, model="sd"
    )
    assert code == 2 and "--prompt has <attributes>, and dataset 'folder' has none" in output


def test_dry_run(generate, tmp_path):
    code, output = generate("--dry-run")
    lines = output.splitlines()
    assert code == 0 and len(lines) == 11 and not (tmp_path / "out").exists()
    assert lines[0].split()[:6] == [UNSEEN[0], "100", "to", "make", "of", "100:"]
    assert "12.5 MB at most" in lines[-1]


def test_counts(models):
    dataset = load_dataset(compose([f"dataset={ZEROSHOT[0]}", *ZEROSHOT[1:]]))

    def counts(*words, **more):
        options = Options("x", "pzsh", Path("out"), count=words, **more)
        return pzsh.class_counts(options, dataset)

    assert counts() == dict.fromkeys(range(40, 50), 100)
    assert counts("7", "unseen=2", "uvo=0") == {
        c: 2 if c >= 40 else 7 for c in range(50) if c != 40
    }
    assert counts("seen=3", limit=2) == dict.fromkeys(range(40), 2)


def test_names_are_safe_and_apart():
    names = [
        "a/b", "a\\b", "..", ".", "", "  ", "nul.txt", "manifest.json", "x" * 300, "x" * 299 + "y",
        "Élan", "elan", "日本", "contact_sheets", "a:b", "a_b-1",
    ]  # fmt: skip
    safe = pzsh.safe_names(names)
    assert len({name.lower() for name in safe}) == len(names)
    for name in safe:
        assert 0 < len(name) <= 100 and name.isascii() and name.strip(". ") == name
        assert not set(name) & set('/\\:*?"<>| ') and name not in ("manifest.json", "nul.txt")
    assert pzsh.safe_names(names) == safe


def test_degrees_of_attributes():
    dataset = load_dataset(compose([f"dataset={ZEROSHOT[0]}", *ZEROSHOT[1:]]))
    degrees = np.tile(np.arange(50, dtype=np.float32)[:, None], (1, 2))
    graded = dataclasses.replace(dataset, attributes=degrees, attribute_names=("big_ears", "swims"))
    words = pzsh._attribute_words(graded)
    assert words[24] == "" and words[25] == "big ears swims"


def test_a_source_that_cannot_be_read(tmp_path, models):
    config = compose([f"dataset={ZEROSHOT[0]}", *ZEROSHOT[1:]])
    dataset = load_dataset(config)

    class Broken:
        fingerprint = "broken"

        def __len__(self):
            return len(dataset)

        def decode(self, row):
            raise pzsh.BadImageError(f"picture {row}: broken.")

    options = Options(
        "x", "pzsh", tmp_path / "out", model=str(models / "sd"), count=("mobbit=1",),
        condition="image", steps=2, device="cpu",
    )  # fmt: skip
    work = pzsh.PZSHGeneration(options, dataclasses.replace(dataset, images=Broken()), config)
    with pytest.raises(UserError, match="A picture to start from cannot be read: picture"):
        work.run()
