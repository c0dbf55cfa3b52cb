"""What is built of a configuration: which captions and pictures are read, what a seed decides."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from common.config.run_config import compose
from runners.experiment import Experiment
from tests.helpers import QUICK, run, write_class_folders

PROXIES = ("method=cosine_proxy", *QUICK)


def texts(experiment, part, train=False):
    view = experiment.view(part, train)
    return view.__getitems__(range(len(view))).text_features.pooled


@pytest.fixture
def augmented(tmp_path, monkeypatch):
    """Words for pictures that training crops and flips by chance."""
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    write_class_folders(tmp_path / "pictures")
    return [
        "method=csq", "dataset=folder", f"dataset.root={tmp_path / 'pictures'}",
        "dataset.split.query=2", "backbone=pixels", "backbone.size=8", "bits=16", *QUICK,
        "data.train_image=[squash 12 bicubic,random_crop 8,flip 0.5]",
        "data.eval_image=[squash 12 bicubic,center_crop 8]",
    ]  # fmt: skip


def images(experiment, part, train=False, epoch=0):
    view = experiment.view(part, train)
    view.set_epoch(epoch)
    return view.__getitems__(range(len(view))).image


def test_chance_changes_pictures_of_training_and_no_others(augmented):
    experiment = Experiment.build(compose(augmented))
    files = (experiment.dataset.images.decode(row) for row in range(len(experiment.dataset)))
    whole = [Image.fromarray(file).resize((12, 12), Image.Resampling.BICUBIC) for file in files]
    mean, std = (np.array(getattr(experiment.inputs.train.image_input, k)) for k in ("mean", "std"))
    middle = (np.stack(whole)[:, 2:10, 2:10] / 255 - mean) / std
    for part in ("train", "val", "query", "database"):
        expected = middle[getattr(experiment.split, part)].transpose(0, 3, 1, 2)
        for epoch in (0, 1):
            np.testing.assert_allclose(images(experiment, part, epoch=epoch), expected, atol=1e-5)
    first, second = (images(experiment, "train", True, epoch) for epoch in (0, 1))
    assert not torch.equal(first, second)
    assert not torch.equal(first, images(experiment, "train"))


def test_the_seed_decides_weights_centres_and_what_chance_changes(augmented):
    one, two, other = (
        Experiment.build(compose([*augmented, f"seed={seed}"])) for seed in (0, 0, 1)
    )
    assert torch.equal(one.model.heads["image"].weight, two.model.heads["image"].weight)
    assert not torch.equal(one.model.heads["image"].weight, other.model.heads["image"].weight)
    assert torch.equal(one.loss.tie_break, two.loss.tie_break)
    assert not torch.equal(one.loss.tie_break, other.loss.tie_break)
    assert torch.equal(images(one, "train", True), images(two, "train", True))
    assert not torch.equal(images(one, "train", True), images(other, "train", True))
    assert torch.equal(images(one, "query"), images(other, "query"))
    assert one.split.hash == other.split.hash  # of the data's seed, not of the run's


def test_the_seed_of_the_split_decides_the_validation_rows(augmented):
    for words, seed in (["seed=5", "dataset.split.seed=7"], 7), (["dataset.split.seed=8"], 8):
        experiment = Experiment.build(compose([*augmented, *words]))
        split, whole = experiment.split, experiment.dataset.split.train
        at = np.sort(np.random.default_rng([seed, 0x7A1]).permutation(len(whole))[: len(split.val)])
        assert len(split.val) == 4
        np.testing.assert_array_equal(split.val, whole[at])
        np.testing.assert_array_equal(split.train, np.delete(whole, at))


def test_the_seed_decides_whose_captions_noise_shuffles(captioned):
    noisy = [*PROXIES, *captioned, "data.caption_noise=0.5", "data.captions=first"]
    one, two, other = (Experiment.build(compose([*noisy, f"seed={s}"])) for s in (0, 0, 1))
    assert torch.equal(texts(one, "train", True), texts(two, "train", True))
    assert not torch.equal(texts(one, "train", True), texts(other, "train", True))
    for part in ("train", "query", "database", "val"):  # noise is for training alone
        assert torch.equal(texts(one, part), texts(other, part))


def test_methods_are_fitted_to_the_training_rows_alone(captioned):
    experiment = Experiment.build(compose([*PROXIES, *captioned, "data.caption_noise=0.5"]))
    experiment.fit_model()
    for modality, layer in experiment.model.standardize.items():
        view = experiment.view("train", noise=True)
        batch = view.__getitems__(range(len(view)))
        rows = batch.features(modality).pooled.double().numpy()
        assert len(rows) == len(experiment.split.train) < len(experiment.split.database)
        np.testing.assert_allclose(layer.mean.numpy(), rows.mean(0), rtol=1e-3, atol=1e-4)


@pytest.fixture
def words(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    return [
        "method=cosine_proxy", "dataset=creatures_scenes", "dataset.rows=400",
        "dataset.split.query=40", "dataset.split.train=100", "backbone=pixels",
        "backbone.size=8", "backbone.text_width=32", "bits=8", *QUICK, "runner.epochs=2",
    ]  # fmt: skip


def test_captions_of_evaluation_are_drawn_anew_at_every_pass(words):
    first = Experiment.build(compose(words))
    drawn = Experiment.build(compose([*words, "data.eval_captions=random"]))
    for part in ("query", "database", "val"):
        assert torch.equal(texts(first, part), texts(first, part))
        one = texts(drawn, part)
        assert torch.equal(one, texts(drawn, part)) and not torch.equal(one, texts(first, part))
        drawn.eval_pass = 1
        assert not torch.equal(one, texts(drawn, part))
        drawn.eval_pass = 0
        assert torch.equal(one, texts(drawn, part))
    assert torch.equal(texts(drawn, "train"), texts(first, "train"))  # looked at, not measured
    assert torch.equal(texts(drawn, "train", train=True), texts(first, "train", train=True))


def test_results_say_so_and_can_be_repeated(words, tmp_path):
    said = []
    for name, more in (("a", []), ("b", ["data.eval_captions=random"]),
                       ("c", ["data.eval_captions=random"])):  # fmt: skip
        folder = run(*words, *more, f"output={tmp_path / name}")
        metrics = json.loads(folder.metrics_file.read_text())
        said.append((metrics["protocol"]["captions"], metrics["directions"]))
    assert [captions for captions, _ in said] == ["first", "random", "random"]
    assert said[1] == said[2] and said[0][1]["t2i"] != said[1][1]["t2i"]
