"""Which encoder a run has: the user's, else the dataset's, else the method's."""

import pytest

from common.config.layers import config_names, read_layer
from common.config.run_config import compose
from runners.sweeps.sweep import SweepFile, expand
from tests.helpers import ROOT
from utils.errors import UserError

CREATURES = [name for name in config_names("dataset") if name.startswith("creatures_")]


def encoder(*words, file=None):
    return compose(words, file).resolved["backbone"]


def test_the_dataset_s_encoder_comes_before_the_method_s():
    assert encoder("method=dsph", "dataset=coco")["config"] == "clip_vit_b32"
    assert encoder("method=dsph", "dataset=creatures_scenes")["config"] == "clip_mini"


def test_the_user_s_choice_comes_before_both(tmp_path):
    words = ("method=dsph", "dataset=creatures_scenes")
    assert encoder(*words, "backbone=pixels")["config"] == "pixels"
    file = tmp_path / "own.yaml"
    file.write_text("backbone: pixels")
    assert encoder(*words, file=file)["config"] == "pixels"
    assert encoder(*words, "backbone=lit_mini", file=file)["config"] == "lit_mini"
    grid = {"method": ["dsph"], "dataset": ["creatures_scenes", "coco"]}
    for sweep in (
        SweepFile(grid, set={"backbone": "pixels"}),
        SweepFile({**grid, "backbone": ["pixels"]}),
    ):
        names = {run.resolved["backbone"]["config"] for run in expand(sweep, file)}
        assert names == {"pixels"}


def test_what_a_method_says_of_its_encoder_holds_for_no_other():
    words = ("method=pixel_released", "dataset=awa2")
    assert encoder(*words)["batch_norm"] == "eval"
    assert encoder(*words, "backbone=resnet101") == encoder(*words)
    other = encoder(*words, "backbone=resnet50")
    assert (other["batch_norm"], other["weights"]) == ("train", "IMAGENET1K_V1")
    assert encoder("method=vtph", "dataset=coco")["freeze"] == "all"
    assert encoder("method=vtph", "dataset=coco", "backbone=pixels")["name"] == "pixels"
    assert encoder("method=orthohash", "dataset=cifar10")["dropout"] == "off"
    assert encoder("method=csq", "dataset=cifar10")["dropout"] == "model"


def test_a_component_in_a_method_s_file_is_its_encoder(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "backbone: {name: timm, model: resnet18, weights: random}\nmodel: image_hash\nloss: csq\n"
    )
    own = encoder(f"method={file}", "dataset=folder")
    assert (own["name"], own["model"]) == ("timm", "resnet18")
    chosen = encoder(f"method={file}", "dataset=creatures_image")
    assert chosen == encoder("method=csq", "dataset=creatures_image")
    assert encoder(f"method={file}", "dataset=folder", "backbone=alexnet")["model"] == "alexnet"


@pytest.mark.parametrize("dataset", ["folder", "mat", "lists", "coco"])
def test_a_method_without_an_encoder(dataset, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("model: image_hash\nloss: csq\n")
    with pytest.raises(UserError) as caught:
        compose([f"method={file}", f"dataset={dataset}"])
    message = str(caught.value)
    for part in (str(file), f"{dataset}.yaml", "backbone=NAME", "resnet50", "'pixels' needs no"):
        assert part in message
    assert "\n" not in message
    assert encoder(f"method={file}", f"dataset={dataset}", "backbone=pixels")["name"] == "pixels"
    by_component = encoder(f"method={file}", f"dataset={dataset}", "backbone.name=pixels")
    assert by_component["name"] == "pixels"
    assert encoder(f"method={file}", "dataset=creatures_image")["config"] == "clip_mini"


@pytest.mark.parametrize("method", config_names("method"))
def test_the_small_encoder_is_for_drawings_alone(method):
    own = read_layer(ROOT / "configs" / "method" / f"{method}.yaml").values["backbone"]
    own = own if isinstance(own, str) else own["config"]
    assert own in config_names("backbone")
    for dataset in config_names("dataset"):
        name = encoder(f"method={method}", f"dataset={dataset}")["config"]
        assert (name == "clip_mini") == (dataset in CREATURES), dataset
        file = read_layer(ROOT / "configs" / "dataset" / f"{dataset}.yaml").values
        assert name == file.get("backbone", own)


def test_no_encoder_is_the_base_s():
    assert "backbone" not in read_layer(ROOT / "configs" / "base.yaml").values


def test_encoders_have_the_weights_and_the_freedom_of_the_papers():
    for name in config_names("backbone"):
        settings = encoder("method=csq", "dataset=folder", f"backbone={name}")
        if settings["name"] == "torchvision":
            assert (settings["weights"], settings["freeze"]) == ("IMAGENET1K_V1", "none")
    clip = encoder("method=dsph", "dataset=coco")
    assert (clip["model"], clip["weights"]) == ("ViT-B-32-quickgelu", "openai")
    methods = config_names("method")
    freeze = {m: encoder(f"method={m}", "dataset=folder").get("freeze") for m in methods}
    assert [m for m in methods if freeze[m] == "all"] == [
        "cosine_proxy", "itq", "lsh", "pixel", "vtph",
    ]  # fmt: skip
