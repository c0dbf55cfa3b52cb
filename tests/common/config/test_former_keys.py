"""Settings that were renamed: refused from users, translated in run folders."""

import pytest
import yaml

from common.config.run_config import compose
from utils.errors import UserError

FORMER = {"augment": "none", "train_geometry": "squash", "eval_geometry": "squash"}


def old_run(tmp_path, **data) -> str:
    """The config.yaml of a run from before, with other ``data``."""
    resolved = dict(compose(["method=csq", "dataset=creatures_image", "bits=16"]).resolved)
    kept = {k: v for k, v in resolved["data"].items() if not k.endswith("_image")}
    resolved["data"] = {**FORMER, **kept, **data}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(resolved))
    return str(file)


@pytest.mark.parametrize(
    ("data", "train", "evaluation"),
    [
        ({}, None, None),
        (
            {"train_geometry": "crop", "augment": "flip"},
            ["resize_short 224 bicubic", "center_crop 224", "flip 0.5"],
            None,
        ),
        (
            {"eval_geometry": "crop", "augment": "resized_crop_flip"},
            [
                "squash 224 bicubic",
                "random_resized_crop 224 scale 0.08-1 ratio 3/4-4/3 bilinear",
                "flip 0.5",
            ],
            ["resize_short 224 bicubic", "center_crop 224"],
        ),
    ],
)
def test_a_run_from_before_is_read(tmp_path, data, train, evaluation):
    config = compose([], old_run(tmp_path, **data))
    assert (config.data.train_image, config.data.eval_image) == (train, evaluation)
    assert compose(["seed=3"], old_run(tmp_path, **data)).data == config.data


def test_a_shift_that_is_no_longer_done_is_told(tmp_path, caplog):
    config = compose([], old_run(tmp_path, augment="crop_flip"))
    assert config.data.train_image == ["squash 224 bicubic", "flip 0.5"]
    assert "can be evaluated and searched, but trained again it differs" in caplog.text


@pytest.mark.parametrize(
    ("word", "present"),
    [
        ("augment=flip", "train_image"),
        ("train_geometry=crop", "train_image"),
        ("eval_geometry=crop", "eval_image"),
    ],
)
def test_a_user_is_told_the_present_key(tmp_path, word, present):
    former = word.split("=")[0]
    message = rf"data\.{former} is now a part of data\.{present}, a list"
    with pytest.raises(UserError, match=f"command line: {message}"):
        compose(["method=csq", "dataset=creatures_image", "bits=16", f"data.{word}"])
    file = tmp_path / "mine.yaml"
    file.write_text(f"data: {{{word.replace('=', ': ')}}}")
    with pytest.raises(UserError, match=f"mine.yaml: {message}"):
        compose(["method=csq", "dataset=creatures_image", "bits=16"], file)
