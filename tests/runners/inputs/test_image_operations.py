"""Operations on pictures in a run: sizes of the encoder, what is cached, what is refused."""

import numpy as np
import pytest
from PIL import Image

from common.config.run_config import DataConfig, compose
from dataset.image_cache import OriginalImages, RaggedImages
from models.backbones.base import CachedBackbone
from runners.experiment import Experiment
from runners.inputs.image_operations import check, eval_geometry, operations_of
from utils.errors import UserError

SHORT = ["resize_short 256 bilinear", "flip 0.5", "random_crop 224"]
CENTER = ["resize_short 256 bilinear", "center_crop 224"]
CROP = ["random_resized_crop 224 scale 0.08-1 ratio 3/4-4/3 bilinear of original"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for i in range(12):
        file = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    return tmp_path / "pictures"


def build(folder, train: list[str], evaluation: list[str]) -> Experiment:
    words = [
        "method=csq", "dataset=folder", f"dataset.root={folder}", "dataset.split.query=1",
        "dataset.split.train=3", "backbone=pixels", "backbone.size=8", "bits=8",
        "eval.select=last", f"data.train_image=[{','.join(train)}]",
        f"data.eval_image=[{','.join(evaluation)}]",
    ]  # fmt: skip
    return Experiment.build(compose(words))


def test_sizes_are_those_of_the_encoder_and_told_once(caplog):
    caplog.set_level("INFO", "hashing")
    train, evaluation = operations_of(DataConfig(train_image=SHORT, eval_image=CENTER), 64)
    assert (train.size, evaluation.size) == (64, 64)
    assert len(caplog.records) == 1 and "random_crop 64], data.eval_image=[res" in caplog.text
    caplog.clear()
    operations_of(DataConfig(train_image=SHORT, eval_image=CENTER), 224)
    operations_of(DataConfig(), 64)  # nobody gave numbers
    assert not caplog.records
    assert str(eval_geometry(DataConfig(), 64)) == "[squash 64 bicubic]"


def test_chance_in_evaluation_is_refused():
    with pytest.raises(UserError, match=r"data.eval_image=.*random_crop 224\] is not accepted"):
        check(DataConfig(eval_image=SHORT))


def test_features_are_cached_unless_chance_changes_them(folder):
    assert isinstance(build(folder, CENTER, CENTER).model.backbone, CachedBackbone)
    experiment = build(folder, SHORT, CENTER)
    assert not isinstance(experiment.model.backbone, CachedBackbone)
    assert isinstance(experiment.inputs.train.images, RaggedImages)
    assert experiment.inputs.evaluation.images.shape == (12, 8, 8, 3)
    batch = experiment.view("train", train=True).__getitems__(range(6))
    assert batch.image.shape == (6, 3, 8, 8)


def test_crops_of_originals_see_the_whole_file(folder):
    experiment = build(folder, CROP, CENTER)
    view = experiment.view("train", train=True)
    assert isinstance(experiment.inputs.train.images, OriginalImages)
    first = view.__getitems__(range(6)).image
    view.set_epoch(1)
    assert (view.__getitems__(range(6)).image != first).any()
    view.set_epoch(0)
    assert (view.__getitems__(range(6)).image == first).all()
    assert experiment.view("query").__getitems__([0]).image.shape == (1, 3, 8, 8)
