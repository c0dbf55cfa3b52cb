"""Which caption of a row is read, in training and in evaluation."""

import json

import pytest
import torch

from common.config.run_config import compose
from runners.experiment import Experiment
from tests.helpers import QUICK, run


@pytest.fixture
def words(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    return [
        "method=cosine_proxy", "dataset=creatures_scenes", "dataset.rows=400",
        "dataset.split.query=40", "dataset.split.train=100", "backbone=pixels",
        "backbone.size=8", "backbone.text_width=32", "bits=8", *QUICK, "runner.epochs=2",
    ]  # fmt: skip


def texts(experiment, part, train=False):
    view = experiment.view(part, train)
    return view.__getitems__(range(len(view))).text_features.pooled


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
