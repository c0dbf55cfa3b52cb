"""One seed for every generator, and their state kept for a resume."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from common.seeding import make_deterministic, rng_state, seed_everything, set_rng_state

DRAWS = {
    "python": random.random,
    "numpy": lambda: float(np.random.rand()),
    "torch": lambda: torch.rand(()).item(),
    "dropout": lambda: torch.nn.functional.dropout(torch.ones(64), 0.5).tolist(),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_seed_decides_every_generator(draw):
    drawn = []
    for seed in (0, 1, 0, 2**32 - 1):
        seed_everything(seed)
        drawn.append([draw(), draw()])
    assert drawn[0] == drawn[2]
    assert drawn[0] != drawn[1] and drawn[1] != drawn[3] and drawn[0] != drawn[3]


def test_a_resume_goes_on_where_the_state_was_taken():
    torch.manual_seed(5)
    torch.rand(3)
    state = {name: value.clone() for name, value in rng_state().items()}
    expected = torch.rand(4)
    torch.rand(9)
    set_rng_state(state)
    assert torch.equal(torch.rand(4), expected)


def test_kernels_are_deterministic():
    torch.use_deterministic_algorithms(False)
    make_deterministic()
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.benchmark
    assert (torch.tensor([1e-38]) * 1e-3).item() == 0  # denormal numbers are flushed
