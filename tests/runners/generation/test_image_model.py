"""Generated images: what they depend on, memory, and models of the wrong kind."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from runners.generation.image_model import DiffusionImageGenerator, ImageRequest, image_seed, mosaic
from runners.generation.options import Options
from tests.runners.generation.tiny import SIDE, write_adapter, write_single_file
from utils.errors import UserError

REQUESTS = [ImageRequest(("row", row, 0), f"a photo of {row}") for row in range(3)]


@pytest.fixture
def options(models) -> Options:
    return Options(
        "toy", "vtph", Path("out"), model=str(models / "sd"), steps=2, batch_size=3, device="cpu"
    )


def generated(generator: DiffusionImageGenerator, requests=REQUESTS) -> dict[tuple, np.ndarray]:
    return {p.key: np.asarray(image) for b in generator.generate(requests) for p, image in b}


def test_a_picture_depends_on_its_key_and_prompt_only(options):
    together = generated(DiffusionImageGenerator(options))
    one = dataclasses.replace(options, batch_size=1)
    alone = generated(DiffusionImageGenerator(one), REQUESTS[::-1])
    assert together.keys() == alone.keys() and together[("row", 0, 0)].shape == (SIDE, SIDE, 3)
    for key, image in together.items():  # batches may round differently, never more than that
        assert np.abs(image.astype(int) - alone[key]).max() <= 1
    assert not np.array_equal(together[("row", 0, 0)], together[("row", 1, 0)])


def test_seed_prompt_and_guidance_matter(options):
    generator = DiffusionImageGenerator(options)
    first = generated(generator)[("row", 0, 0)]
    elsewhere = generated(generator, [ImageRequest(("row", 0, 0), "cow cow cow")])[("row", 0, 0)]
    assert not np.array_equal(first, elsewhere)
    for change in ({"seed": 7}, {"guidance": 1.0}, {"negative_prompt": "bee"}, {"steps": 3}):
        other = DiffusionImageGenerator(dataclasses.replace(options, **change))
        assert not np.array_equal(first, generated(other)[("row", 0, 0)]), change
        assert other.identity != generator.identity


def test_the_generator_is_the_stated_one(options):
    """The pipeline called directly, one picture at a time, is the oracle."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(options.model)
    pipeline.set_progress_bar_config(disable=True)
    request = REQUESTS[1]
    random = torch.Generator().manual_seed(image_seed(42, request.key))
    image = pipeline(
        request.prompt, num_inference_steps=2, guidance_scale=7.5, generator=random
    ).images[0]
    ours = generated(DiffusionImageGenerator(options), [request])[request.key]
    assert np.array_equal(ours, np.asarray(image))


def test_size(options):
    generator = DiffusionImageGenerator(dataclasses.replace(options, size=32))
    assert generator.side == 32
    assert generated(generator, REQUESTS[:1])[("row", 0, 0)].shape == (32, 32, 3)


def test_pictures_that_start_from_others(options, models):
    rng = np.random.default_rng(0)
    light, dark = (np.full((20, 30, 3), v, np.uint8) for v in (230, 20))
    noise = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for change in (
        {"condition": "image", "strength": 0.5},
        {"condition": "mosaic", "adapter": str(models / "adapter")},
    ):
        generator = DiffusionImageGenerator(dataclasses.replace(options, **change))
        images = [
            generated(generator, [ImageRequest(("row", 0, 0), "a", lambda p=p: p)])[("row", 0, 0)]
            for p in (light, dark, noise)
        ]
        assert {p.shape for p in images} == {(SIDE, SIDE, 3)}
        assert not np.array_equal(images[0], images[1]) and not np.array_equal(images[1], images[2])
        assert generator.identity["condition"] == change["condition"]


def test_an_adapter_of_another_model(options, models, tmp_path):
    write_adapter(tmp_path, channels=(4, 8))
    change = {"condition": "mosaic", "adapter": str(tmp_path)}
    with pytest.raises(UserError, match=r"of \[4, 8\] channels, and --model .* has \[8, 16\]"):
        generated(DiffusionImageGenerator(dataclasses.replace(options, **change)))
    change["adapter"] = str(models / "sd")
    with pytest.raises(UserError, match="is not a T2I-Adapter"):
        DiffusionImageGenerator(dataclasses.replace(options, **change))


def test_a_pipeline_that_does_not_take_an_option(options, monkeypatch):
    class Plain:
        def __call__(self, prompt, num_inference_steps, guidance_scale, generator):
            pass

    generator = DiffusionImageGenerator(dataclasses.replace(options, negative_prompt="bee"))
    monkeypatch.setattr(generator, "_load", Plain)
    with pytest.raises(UserError, match="is a Plain, which takes no negative_prompt; leave that"):
        generated(generator)


def test_mosaic():
    """Eight by eight blocks of one colour each, the mean of a picture that is constant there."""
    blocks = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(blocks.repeat(4, 0).repeat(4, 1))
    reduced = np.asarray(mosaic(picture, 16))
    assert np.array_equal(reduced[::2, ::2], reduced[1::2, 1::2])
    small = np.asarray(picture.resize((8, 8), Image.Resampling.BILINEAR))
    assert np.array_equal(reduced, small.repeat(2, 0).repeat(2, 1))


def test_the_batch_is_halved_when_memory_runs_out(options, monkeypatch):
    generator = DiffusionImageGenerator(options)
    tried = []

    def work(batch):
        tried.append(len(batch))
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [Image.new("RGB", (8, 8)) for _ in batch]

    monkeypatch.setattr(generator, "_batch", work)
    assert list(generated(generator)) == [p.key for p in REQUESTS]
    assert tried == [3, 1, 1, 1]

    def never(batch):
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")

    monkeypatch.setattr(generator, "_batch", never)
    with pytest.raises(UserError, match="not hold even one of the pictures"):
        generated(generator)


def test_the_fingerprint_is_of_the_weights_not_of_the_place(options, models, tmp_path):
    shutil.copytree(models / "sd", tmp_path / "moved")
    moved = DiffusionImageGenerator(dataclasses.replace(options, model=str(tmp_path / "moved")))
    other = DiffusionImageGenerator(dataclasses.replace(options, model=str(models / "other")))
    prints = [p.identity["fingerprint"] for p in (DiffusionImageGenerator(options), moved, other)]
    assert prints[0] == prints[1] != prints[2]


class Evil:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return Path.touch, (self.folder / "executed",)


def test_models_of_the_wrong_kind(options, models, tmp_path):
    (tmp_path / "sd.bin").write_bytes(b"weights")
    (tmp_path / "empty").mkdir()
    (tmp_path / "sd.safetensors").write_bytes(b"no tensors")
    torch.save({"state_dict": Evil(tmp_path)}, tmp_path / "evil.ckpt")
    broken = tmp_path / "broken"
    shutil.copytree(models / "sd", broken)
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut")
    for model, part in {
        str(tmp_path / "none"): "none' does not exist; a text-to-image model",
        "gone.safetensors": "'gone.safetensors' does not exist",
        str(models / "blip"): "is not a text-to-image model",
        str(tmp_path / "empty"): "it has no model_index.json",
        str(tmp_path / "sd.bin"): "is a file; a text-to-image model",
        str(tmp_path / "sd.safetensors"): "cannot be loaded as a text-to-image model",
        str(tmp_path / "evil.ckpt"): "cannot be loaded as a text-to-image model",
        str(broken): "cannot be loaded as a text-to-image model",
    }.items():
        with pytest.raises(UserError) as error:
            generated(DiffusionImageGenerator(dataclasses.replace(options, model=model)))
        assert part in str(error.value) and "\n" not in str(error.value), model

    assert not (tmp_path / "executed").exists(), "a pickle was executed"


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_single_file_generates_what_its_folder_does(suffix, options, models, tmp_path):
    file = write_single_file(models / "sd", tmp_path / f"sd{suffix}")
    single = DiffusionImageGenerator(
        dataclasses.replace(options, model=str(file), model_config=str(models / "sd"))
    )
    assert single.side == SIDE
    expected = generated(DiffusionImageGenerator(options))
    for key, image in generated(single).items():
        assert np.array_equal(image, expected[key])
    with pytest.raises(UserError, match="--model-config: .* is not a diffusers folder"):
        DiffusionImageGenerator(dataclasses.replace(single.options, model_config=str(tmp_path)))


def test_a_single_file_whose_settings_cannot_be_fetched(options, models, tmp_path, monkeypatch):
    from diffusers.loaders import single_file
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(*args, **kwargs):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(single_file, "snapshot_download", fail)
    file = write_single_file(models / "sd", tmp_path / "sd.safetensors")
    with pytest.raises(UserError, match="holds no settings, .* give --model-config DIR"):
        generated(DiffusionImageGenerator(dataclasses.replace(options, model=str(file))))


def test_a_hub_that_does_not_answer(options, monkeypatch):
    from diffusers import DiffusionPipeline

    def fail(tag):
        raise OSError(f"We couldn't connect to the hub for {tag}.\nCheck your connection.")

    monkeypatch.setattr(DiffusionPipeline, "download", fail)
    with pytest.raises(UserError, match=r"the model hub does not give it .*somebody/model\); give"):
        DiffusionImageGenerator(dataclasses.replace(options, model="somebody/model"))
