"""The runner of methods without gradient: which keys it accepts, and what they resolve to."""

import dataclasses

import pytest
import torch

from common.config.run_config import compose
from runners.standard import StandardConfig
from utils.errors import UserError

LSH = ("method=lsh", "dataset=creatures_image", "bits=16")
OTHER = {
    "epochs": "7", "batch_size": "9", "accumulate": "2", "clip_norm": "0.5", "precision": "bf16",
    "drop_last": "true", "checkpoint_every": "3", "tensorboard": "false", "pictures": "0",
}  # fmt: skip


def test_keys_of_training_are_accepted_and_mean_nothing():
    names = {field.name for field in dataclasses.fields(StandardConfig)}
    assert names == {*OTHER, "device", "threads"}
    plain = compose(LSH)
    assert {key for key, value in plain.resolved["runner"].items() if value is None} == {*OTHER}
    for key, value in OTHER.items():
        config = compose([*LSH, f"runner.{key}={value}"])
        assert config.resolved == plain.resolved and config.run_name == plain.run_name
    assert compose([*LSH, "runner.epochs=null"]).resolved == plain.resolved


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("runner.epoch=3", "key 'runner.epoch' is not known. Did you mean 'epochs'\\? Accepted "
         "there: device, threads, epochs, batch_size, accumulate, clip_norm, precision, drop_last, "
         "checkpoint_every, tensorboard, pictures."),
        ("runner.epochs=many", "runner.epochs='many' is not accepted; a whole number is needed."),
    ],
)  # fmt: skip
def test_others_are_refused(word, message):
    with pytest.raises(UserError, match=message):
        compose([*LSH, word])


@pytest.mark.parametrize("method", ["lsh", "csq"])
def test_every_runner_uses_the_threads_that_are_asked_for(method, monkeypatch):
    counts: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    for threads in (3, 0):
        config = compose([f"method={method}", *LSH[1:], f"runner.threads={threads}"])
        config.runner.entry.target(config)
    assert counts == [3]
