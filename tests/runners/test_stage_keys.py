"""Keys of stages: equal for what is equal, another for whatever decides a result."""

import dataclasses
import json

import numpy as np
import torch

from common.config.run_config import compose
from runners.experiment import Experiment
from runners.stage_keys import array_digest, data_identity, settings_identity


def test_arrays_by_type_shape_and_values():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    same = (torch.from_numpy(values), values.copy(), np.asfortranarray(values))
    assert {array_digest(v) for v in same} == {array_digest(values)}
    others = (values.astype(np.float64), values.reshape(3, 2), values + 1, values[:1])
    assert len({array_digest(v) for v in (values, *others)}) == 5


def test_settings_leave_out_what_decides_nothing(pictures, tmp_path):
    def identity(*words):
        return settings_identity(compose(["method=csq", *pictures, *words]))

    first = identity()
    for word in (f"output={tmp_path}", "data.workers=1", "runner.threads=2", "runner.device=cpu"):
        assert identity(word) == first
    for word in ("seed=1", "loss.lambda_quant=0.1", "optim.lr=1", "runner.epochs=2"):
        assert identity(word) != first
    json.dumps(first)


def test_data_by_content(pictures):
    experiment = Experiment.build(compose(["method=csq", *pictures]))
    first = data_identity(experiment)
    assert first == data_identity(Experiment.build(compose(["method=csq", *pictures, "bits=8"])))
    labels = experiment.dataset.labels.copy()
    labels[0] = labels[-1]
    relabelled = dataclasses.replace(experiment.dataset, labels=labels)
    changed = data_identity(dataclasses.replace(experiment, dataset=relabelled))
    assert {k for k in first if changed[k] != first[k]} == {"labels"}
    split = Experiment.build(compose(["method=csq", *pictures, "dataset.split.seed=5"]))
    assert {k for k, v in data_identity(split).items() if v != first[k]} == {"split"}
