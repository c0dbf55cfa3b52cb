"""Learning-rate schedules at points that can be told by hand."""

import math

import pytest

from common.config import schema
from common.registry import SCHEDULERS

STEPS, EPOCHS = 100, 10


def factor(name, step, **keys):
    entry = SCHEDULERS.get(name)
    config = schema.build(entry.config, keys, "schedule", str)
    return entry.target(config, step, STEPS, step * EPOCHS // STEPS, EPOCHS)


@pytest.mark.parametrize(
    ("name", "keys", "expected"),
    [
        ("constant", {}, {0: 1, 99: 1}),
        ("warmup_cosine", {}, {0: 0, 5: 0.5, 10: 0.5 * (1 + math.cos(0.1 * math.pi)), 50: 0.5}),
        ("warmup_cosine", {"warmup": 0.0}, {0: 1, 50: 0.5}),
        ("warmup_constant", {"warmup": 0.5}, {0: 0, 25: 0.5, 50: 1, 99: 1}),
        ("warmup_linear", {"warmup": 0.2}, {0: 0, 10: 0.5, 20: 1, 60: 0.5, 100: 0}),
        ("cosine", {}, {0: 1, 9: 1, 50: 0.5, 59: 0.5, 90: 0.5 * (1 + math.cos(0.9 * math.pi))}),
        ("cosine", {"floor": 0.2}, {0: 1, 50: 0.6, 100: 0.2}),
        ("step", {"every": 3, "gamma": 0.5}, {0: 1, 29: 1, 30: 0.5, 60: 0.25, 99: 0.125}),
    ],
)  # fmt: skip
def test_values(name, keys, expected):
    for step, value in expected.items():
        assert factor(name, step, **keys) == pytest.approx(value, abs=1e-12), step


@pytest.mark.parametrize("name", SCHEDULERS.names())
def test_every_schedule_stays_between_zero_and_one(name):
    values = [factor(name, step) for step in range(STEPS)]
    assert min(values) >= 0 and max(values) <= 1 and max(values) > 0.9


def test_bertadam_drops_where_the_warmup_ends():
    assert factor("warmup_cosine", 9) == pytest.approx(0.9)
    assert factor("warmup_cosine", 10) == pytest.approx(0.9755, abs=1e-4)
