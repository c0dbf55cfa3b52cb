"""The loop of training against a plain one, the modes it trains and measures in, its order."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.config.run_config import compose
from common.seeding import seed_everything
from models.base import Progress
from models.image.cosine_proxy import CosineProxyLoss, MLPHash
from runners import standard
from runners.experiment import Experiment
from tests.helpers import QUICK, run

DROPPING = ("method=cosine_proxy", *QUICK)  # a head with dropout


@pytest.fixture
def batches(monkeypatch):
    """Return what every training step sees: the mode, the rows, the epoch."""
    seen = []
    loss_of, codes_of = CosineProxyLoss.forward, MLPHash.forward

    def spying_loss(self, outputs, batch, progress):
        seen.append((self.training, batch.index.tolist(), progress.epoch))
        return loss_of(self, outputs, batch, progress)

    def spying_model(self, batch):
        assert self.training and self.heads["image"][2].training, "the head's dropout is off"
        return codes_of(self, batch)

    monkeypatch.setattr(CosineProxyLoss, "forward", spying_loss)
    monkeypatch.setattr(MLPHash, "forward", spying_model)
    return seen


@pytest.mark.parametrize("select", ["last", "val"])
def test_every_step_is_in_training_mode(select, captioned, tmp_path, batches):
    run(*DROPPING, *captioned, f"eval.select={select}", f"output={tmp_path}")
    assert {epoch for _, _, epoch in batches} == {0, 1, 2}  # also behind a measured epoch
    assert all(training for training, _, _ in batches)


def test_every_row_once_an_epoch_in_an_order_of_the_seed(captioned, tmp_path, batches):
    orders = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        batches.clear()
        words = [*DROPPING, *captioned, f"seed={seed}", "eval.select=last"]
        run(*words, f"output={tmp_path / name}")
        orders[name] = [
            [row for _, rows, epoch in batches if epoch == number for row in rows]
            for number in range(3)
        ]
    every = sorted(orders["a"][0])
    assert every == list(range(len(every)))
    assert all(sorted(order) == every for orders_of in orders.values() for order in orders_of)
    assert orders["a"] == orders["b"]
    assert len({tuple(o) for name in ("a", "c") for o in orders[name]}) == 6


def test_validation_rows_are_measured_against_the_training_rows(captioned, tmp_path, monkeypatch):
    measured = []
    measure = standard.measure_epoch

    def spying(query, database, *arguments, **more):
        measured.append((query.rows.tolist(), database.rows.tolist()))
        return measure(query, database, *arguments, **more)

    monkeypatch.setattr(standard, "measure_epoch", spying)
    words = [*DROPPING, *captioned, f"output={tmp_path}"]
    split = Experiment.build(compose(words)).split
    run(*words, "eval.select=val")
    assert len(split.val) and len(measured) == 3
    for asking, searched in measured:
        assert asking == split.val.tolist() and searched == split.train.tolist()
        assert not set(asking) & set(searched)
    measured.clear()
    run(*words, "eval.select=query")
    assert {tuple(asking) for asking, _ in measured} == {tuple(split.query)}
    assert {tuple(searched) for _, searched in measured} == {tuple(split.database)}


def test_the_weights_are_those_of_a_plain_loop(pictures, tmp_path):
    words = [
        "method=csq", *QUICK, *pictures, "optim.name=sgd", "optim.lr=0.5", "eval.select=last",
        "runner.epochs=2", f"output={tmp_path}",
    ]  # fmt: skip
    config = compose(words)
    seed_everything(config.seed)
    experiment = Experiment.build(config)
    model, loss = experiment.model.train(), experiment.loss.train()
    view = experiment.view("train", train=True)
    for epoch in range(2):
        order = np.random.RandomState([config.seed, epoch]).permutation(len(view))
        for start in range(0, len(view), 16):
            batch = view.__getitems__(order[start : start + 16])
            for parameter in model.parameters():
                parameter.grad = None
            sum(loss(model(batch), batch, Progress()).values()).backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.5 * parameter.grad
    folder = run(*words)
    saved = load_file(folder.checkpoints / "last" / "model.safetensors")
    assert len(saved) == len(list(model.parameters()))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(saved[name], value, rtol=1e-4, atol=1e-6)


def test_a_run_that_is_done_has_the_codes_of_every_row(captioned, tmp_path):
    words = [*DROPPING, *captioned, f"output={tmp_path}"]
    split = Experiment.build(compose(words)).split
    folder = run(*words)
    assert folder.is_done
    with h5py.File(folder.codes_file) as file:
        for part in ("query", "database"):
            np.testing.assert_array_equal(file[part]["rows"][:], getattr(split, part))
            for modality in ("image", "text"):
                assert file[part][modality].shape == (len(getattr(split, part)), 2)
