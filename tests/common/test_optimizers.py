"""BertAdam against loops written from its equation; the others against torch.optim."""

import math

import pytest
import torch
from torch import nn

from common.config import schema
from common.optimizers import BertAdam
from common.registry import OPTIMIZERS

SHAPES = [(), (1,), (5,), (3, 4), (2, 3, 2)]


def reference_step(p, g, m, v, lr, beta1, beta2, eps, decay, clip):
    """One step of one tensor, number by number: the equation in BertAdam's docstring."""
    p, g, m, v = (list(values) for values in (p, g, m, v))
    if clip > 0:
        scale = min(1.0, clip / (math.sqrt(sum(x * x for x in g)) + 1e-6))
        g = [x * scale for x in g]
    for i, gradient in enumerate(g):
        m[i] = beta1 * m[i] + (1 - beta1) * gradient
        v[i] = beta2 * v[i] + (1 - beta2) * gradient * gradient
        p[i] = p[i] - lr * (m[i] / (math.sqrt(v[i]) + eps) + decay * p[i])
    return p, m, v


@pytest.mark.parametrize("clip", [1.0, 0.3, 0.0, -1.0])
@pytest.mark.parametrize("decay", [0.2, 0.0])
def test_bertadam_is_its_equation(clip, decay):
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in SHAPES]
    expected = [
        (p.detach().flatten().tolist(), [0.0] * p.numel(), [0.0] * p.numel()) for p in parameters
    ]
    optimizer = BertAdam(parameters, 0.01, weight_decay=decay, max_grad_norm=clip)
    for step in range(4):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (step + 1)  # as a schedule would
        for i, p in enumerate(parameters):
            p.grad = torch.randn_like(p) * 10 ** (step - 2)  # below and above the clipping norm
            expected[i] = reference_step(
                expected[i][0], p.grad.flatten().tolist(), *expected[i][1:],
                0.01 * (step + 1), 0.9, 0.98, 1e-6, decay, clip,
            )  # fmt: skip
        optimizer.step()
    for p, (values, m, v) in zip(parameters, expected, strict=True):
        state = optimizer.state[p]
        for actual, reference in ((p, values), (state["m"], m), (state["v"], v)):
            torch.testing.assert_close(
                actual.detach().flatten(),
                torch.tensor(reference, dtype=torch.float64),
                rtol=1e-12,
                atol=0,
            )


def test_tensors_without_gradient_are_left_alone():
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = BertAdam([used, unused], 0.1)
    used.grad = torch.ones(2)
    optimizer.step()
    assert unused.tolist() == [1, 1] and unused not in optimizer.state  # no decay either
    assert used.tolist() != [1, 1]
    used.grad = None
    before = used.tolist()
    optimizer.step()
    assert used.tolist() == before


def test_a_closure_computes_the_loss_first():
    p = nn.Parameter(torch.ones(2))
    optimizer = BertAdam([p], 0.1)

    def closure():
        optimizer.zero_grad()
        loss = p.pow(2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2
    assert p.tolist() != [1, 1]


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_every_optimizer_goes_downhill_from_its_defaults(name):
    entry = OPTIMIZERS.get(name)
    p = nn.Parameter(torch.full((3,), 2.0))
    optimizer = entry.target([p], 0.01, schema.build(entry.config, {}, "optim", str))
    for _ in range(5):
        optimizer.zero_grad()
        p.pow(2).sum().backward()
        optimizer.step()
    assert p.detach().abs().max() < 2


def test_settings_reach_torch():
    defaults_of = {}
    for name, values in {
        "adam": {"beta1": 0.5, "beta2": 0.6, "eps": 0.7, "weight_decay": 0.8},
        "adamw": {"beta1": 0.5, "beta2": 0.6, "eps": 0.7, "weight_decay": 0.8},
        "sgd": {"momentum": 0.5, "weight_decay": 0.8, "nesterov": True},
        "rmsprop": {"alpha": 0.5, "eps": 0.7, "weight_decay": 0.8, "momentum": 0.9},
        "bertadam": {
            "beta1": 0.5,
            "beta2": 0.6,
            "eps": 0.7,
            "weight_decay": 0.8,
            "max_grad_norm": 2,
        },
    }.items():
        entry = OPTIMIZERS.get(name)
        config = schema.build(entry.config, values, "optim", str)
        defaults_of[name] = entry.target([nn.Parameter(torch.ones(1))], 0.1, config).defaults
        assert defaults_of[name]["lr"] == 0.1
        remaining = dict(values)
        if "beta1" in remaining:
            assert defaults_of[name]["betas"] == (remaining.pop("beta1"), remaining.pop("beta2"))
        assert {key: defaults_of[name][key] for key in remaining} == remaining
    assert not defaults_of["sgd"]["dampening"]
