"""``generate --method vtph``: the folder that VTPH reads, resumed, refused, in parts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import main
from common.config.run_config import compose
from runners.generation import base, caption_model, image_model, vtph
from runners.generation.output_folder import Lines
from runners.inputs.loading import load_dataset
from tests.helpers import write_captioned
from tests.runners.generation.tiny import SIDE

ROWS = 20
QUICK = ("--steps", "2", "--device", "cpu", "--batch-size", "8")


@pytest.fixture
def data(tmp_path_factory, monkeypatch) -> list[str]:
    """Words that choose 20 toy pictures with captions."""
    base = tmp_path_factory.getbasetemp() / "generate"
    monkeypatch.setenv("HASHING_CACHE", str(base / "cache"))
    if not (base / "captioned").exists():
        write_captioned(base / "captioned", ROWS)
    words = [f"dataset.root={base / 'captioned'}", "dataset.csv=list.csv"]
    return ["folder", *words, "dataset.split.rule=per_class", "dataset.split.query=2"]


@pytest.fixture
def generate(data, models, tmp_path, capfd):
    """Return a function that runs the command and returns (exit code, output)."""

    def run(*words: str, parts: str = "sd blip", out: str = "out") -> tuple[int, str]:
        command = ["generate", *data, "--method", "vtph", "--out", str(tmp_path / out), *QUICK]
        if "blip" in parts:
            command += ["--captioner", str(models / "blip")]
        for model in {"sd", "other"} & set(parts.split()):
            command += ["--model", str(models / model)]
        code = main.main([*command, *words])
        output = capfd.readouterr()
        assert "Traceback" not in output.err
        return code, output.out if code == 0 else output.err.strip().splitlines()[-1]

    return run


def content(out: Path) -> dict[str, bytes | list]:
    """Return pictures and lines of a folder; lines sorted, since a resumed run may append later."""
    pictures = {f.name: f.read_bytes() for f in sorted((out / "query_images").glob("*.png"))}
    lines = {f.name: sorted(f.read_text().splitlines()) for f in out.glob("*.jsonl")}
    return {**pictures, **lines}


def texts(file: Path) -> dict[int, str]:
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(set(entry) == {"row", "text"} for entry in entries)
    assert len({entry["row"] for entry in entries}) == len(entries)
    return {entry["row"]: entry["text"] for entry in entries}


@pytest.fixture
def config(data):
    """Return a function that composes the settings of the toy pictures and further words."""
    return lambda *words: compose([f"dataset={data[0]}", *data[1:], *words])


@pytest.fixture
def dataset(config):
    return load_dataset(config())


def test_the_whole_folder(generate, dataset, tmp_path, models):
    code, output = generate()
    out, query = tmp_path / "out", set(dataset.split.query.tolist())
    assert code == 0 and output.strip().splitlines()[-1] == str(out)
    assert set(texts(out / "captions.jsonl")) == set(range(ROWS))
    assert set(texts(out / "query_captions.jsonl")) == query
    assert {int(f.stem) for f in (out / "query_images").iterdir()} == query
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["dataset"]["split_hash"] == dataset.split.hash
    made = {name: part["made_by"] for name, part in manifest["parts"].items()}
    assert made["query_images"]["prompt"] == "<text>" and made["query_images"]["steps"] == 2
    assert made["query_images"]["model"] == str(models / "sd")
    assert {name: (p["done"], p["wanted"]) for name, p in manifest["parts"].items()} == {
        "query_images": (len(query), len(query)), "captions": (ROWS, ROWS),
        "query_captions": (len(query), len(query)),
    }  # fmt: skip
    assert set(manifest["versions"]) == {"torch", "diffusers", "transformers", "pillow"}
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.width > 2 * SIDE
    assert [p for p in out.rglob(".*") if p.name != ".lock"] == []


def test_pictures_are_of_the_query_texts_and_captions_of_the_pictures(
    generate, dataset, tmp_path, models
):
    generate("--prompt", "a photo of <text>")
    out = tmp_path / "out"
    options = vtph.Options(
        "x", "vtph", out, model=str(models / "sd"), captioner=str(models / "blip"), steps=2,
        device="cpu",
    )  # fmt: skip
    row = int(dataset.split.query[1])
    prompt = f"a photo of {dataset.texts[row][0]}"
    request = image_model.ImageRequest(("row", row, 0), prompt)
    ((_, image),) = next(iter(image_model.DiffusionImageGenerator(options).generate([request])))
    picture = np.asarray(Image.open(out / "query_images" / f"{row}.png"))
    assert np.abs(picture.astype(int) - np.asarray(image)).max() <= 1
    model = caption_model.CaptionModel(options)
    sources = {"captions": dataset.images.decode(row), "query_captions": picture}
    for file, source in sources.items():
        ((_, text),) = next(iter(model.caption([row], lambda _, source=source: source)))
        assert texts(out / f"{file}.jsonl")[row] == text


class KilledError(BaseException):
    pass


def test_a_run_that_is_killed_goes_on_where_it_stopped(generate, tmp_path, monkeypatch):
    generate(out="whole")
    whole = content(tmp_path / "whole")
    out = tmp_path / "out"
    for target, name in ((base, "save_image"), (Lines, "append")):
        calls, real = [], getattr(target, name)

        def dying(*args, calls=calls, real=real):
            if len(calls) == 3:  # the fourth picture, the last captions
                raise KilledError
            calls.append(args)
            return real(*args)

        with monkeypatch.context() as patch:
            patch.setattr(target, name, dying)
            with pytest.raises(KilledError):
                generate()
    assert content(out) != whole
    with open(out / "captions.jsonl", "ab") as stream:
        stream.write(b'{"row": 19, "te')
    generate()
    assert content(out) == whole


def test_a_second_run_makes_nothing_and_loads_nothing(generate, tmp_path, monkeypatch):
    generate()
    before = content(tmp_path / "out")
    for model in (image_model.DiffusionImageGenerator, caption_model.CaptionModel):
        monkeypatch.setattr(model, "_batch", lambda *_: pytest.fail("worked again"))
    assert generate()[0] == 0
    assert content(tmp_path / "out") == before


def test_deleted_things_are_made_again(generate, tmp_path):
    generate()
    out = tmp_path / "out"
    before = content(out)
    next((out / "query_images").glob("*.png")).unlink()
    (out / "query_captions.jsonl").unlink()
    generate()
    assert content(out) == before


def test_the_batch_size_changes_nothing(generate, tmp_path):
    generate()
    generate("--batch-size", "3", out="other")
    one, other = content(tmp_path / "out"), content(tmp_path / "other")
    assert one.keys() == other.keys() and one["captions.jsonl"] == other["captions.jsonl"]
    for name in (name for name in one if name.endswith(".png")):
        files = (tmp_path / folder / "query_images" / name for folder in ("out", "other"))
        first, second = (np.asarray(Image.open(file)).astype(int) for file in files)
        assert np.abs(first - second).max() <= 1


def test_limit_and_parts(generate, dataset, tmp_path):
    out = tmp_path / "out"
    assert generate("--limit", "3", parts="sd")[0] == 0
    assert len(list((out / "query_images").iterdir())) == 3
    assert not (out / "captions.jsonl").exists()
    assert generate("--limit", "4", parts="blip")[0] == 0
    assert list(texts(out / "captions.jsonl")) == [0, 1, 2, 3]
    generated = [int(row) for row in dataset.split.query[:3]]
    assert list(texts(out / "query_captions.jsonl")) == generated
    generate()
    generate(out="whole")
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("words", "parts", "message"),
    [
        ((), "other blip", "holds query_images with fingerprint="),
        (("--seed", "1"), "sd blip", "with seed=42, and this command has seed=1; give the same"),
        (("--steps", "3"), "sd blip", "with steps=2, and this command has steps=3"),
        (("--prompt", "the <text>"), "sd blip", "with prompt=<text>, and this command has prompt="),
        (("dataset.split.seed=9",), "blip", "with split_hash="),
    ],
)
def test_what_is_made_otherwise_is_not_mixed(words, parts, message, generate, tmp_path):
    generate("--limit", "2")
    before = content(tmp_path / "out")
    code, output = generate(*words, parts=parts)
    assert code == 2 and message in output and "or another --out." in output
    assert content(tmp_path / "out") == before


def test_dry_run(generate, tmp_path, dataset):
    code, output = generate("--dry-run")
    n = len(dataset.split.query)
    assert code == 0 and not (tmp_path / "out").exists()
    numbers = {line[:15].strip(): line[15:].split() for line in output.splitlines()}
    assert numbers["query images"][0] == numbers["query images"][-1] == str(n)
    assert numbers["captions"][0] == str(ROWS)
    most = n * SIDE * SIDE * 3 + (n + ROWS) * 250
    assert numbers["disk"][:2] == [f"{most / 1000:.1f}", "kB"]


@pytest.mark.parametrize(
    ("words", "parts", "message"),
    [
        ((), "", "needs --model PATH (it paints pictures from query texts), --captioner PATH"),
        (("--prompt", "a photo"), "sd", "--prompt 'a photo' has no <text>"),
        (("--prompt", "<text> <label>"), "sd", "has <label>, which nothing fills; known are"),
        (("--steps", "0"), "sd", "--steps 0 is not accepted; at least 1 is needed."),
        (("--size", "20"), "sd", "--size 20 is not accepted; a multiple of 8"),
        (("--seed", "-1"), "sd", "--seed -1 is not accepted"),
        (("--guidance", "nan"), "sd", "--guidance nan is not accepted"),
        (("--device", "tpu9"), "sd", "--device tpu9 is not accepted"),
        (("--count", "3"), "sd", "--count and --condition belong to --method pzsh"),
        (("--condition", "mosaic"), "sd", "--condition mosaic and --adapter PATH"),
        (("--model", "creatures"), "", "--model creatures draws classes, not texts"),
        (("--method", "vtpf"), "sd", "'vtpf'. Did you mean 'vtph'?"),
        (("dataset=flicker8k",), "sd", "Unknown dataset 'flicker8k'. Did you mean 'flickr8k'?"),
        (("dataset.csv=null",), "sd", "'folder' has no"),
    ],
)  # fmt: skip
def test_bad_input(words, parts, message, generate, tmp_path, toy_root):
    if words == ("dataset.csv=null",):
        words = (*words, f"dataset.root={toy_root / 'pictures'}")
    code, output = generate(*words, parts=parts)
    assert code == 2 and message in output
    assert not (tmp_path / "out").exists()


def test_a_full_disk(generate, tmp_path, monkeypatch):
    monkeypatch.setattr("runners.generation.output_folder.free_space", lambda path: 100)
    code, output = generate()
    assert code == 2 and "free; make room" in output and not (tmp_path / "out").exists()


def test_an_empty_query_text(dataset, config, models, tmp_path):
    row = int(dataset.split.query[0])
    hurt = list(dataset.texts)
    hurt[row] = (" ",)
    options = vtph.Options("x", "vtph", tmp_path / "out", model=str(models / "sd"), device="cpu")
    with pytest.raises(vtph.UserError, match=f"the text of query row {row} is empty"):
        vtph.VTPHGeneration(options, dataclasses.replace(dataset, texts=hurt), config())


def test_a_picture_that_cannot_be_read(dataset, config, models, tmp_path):
    class Broken:
        fingerprint = "broken"

        def __len__(self):
            return len(dataset)

        def decode(self, row):
            if row == 5:
                raise vtph.BadImageError("'5.png': broken.")
            return dataset.images.decode(row)

    hurt = dataclasses.replace(dataset, images=Broken())
    options = vtph.Options(
        "x", "vtph", tmp_path / "out", captioner=str(models / "blip"), device="cpu"
    )
    with pytest.raises(vtph.UserError, match=r"'5.png': broken. data.on_bad_image=skip"):
        vtph.VTPHGeneration(options, hurt, config()).run()
    vtph.VTPHGeneration(options, hurt, config("data.on_bad_image=skip")).run()
    assert set(texts(tmp_path / "out" / "captions.jsonl")) == set(range(ROWS)) - {5}
