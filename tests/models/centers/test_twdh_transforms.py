"""TwDH's centres and transforms against loops written from the equations."""

import math

import numpy as np
import pytest
import torch

from models.centers.twdh_transforms import (
    ReleasedConfig,
    ReleasedTransform,
    long_centers,
    projection,
    regression,
    released,
    reproduced,
    short_centers,
    two_way,
)
from models.layers.pair_softmax import pair_softmax
from utils.errors import UserError

CLASSES, LONG, SHORT = 6, 32, 8


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def centers():
    return long_centers(CLASSES, LONG, seeded()), short_centers(CLASSES, SHORT, seeded(1))


@pytest.fixture
def label():
    return (torch.rand(40, CLASSES, generator=seeded(2)) < 0.3).float()  # some rows have none


@pytest.mark.parametrize(("classes", "bits"), [(1, 2), (6, 8), (7, 8), (24, 512)])
def test_long_centers_are_balanced_and_half_apart(classes, bits):
    centers = long_centers(classes, bits, seeded())
    assert centers.shape == (classes, bits) and set(centers.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(centers @ centers.T, bits * torch.eye(classes))
    assert bool((centers.sum(1) == 0).all())


def test_the_generator_orders_the_rows():
    first, second, other = (long_centers(20, 64, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("classes", "bits", "enough"), [(8, 8, 512), (600, 512, 1024), (3, 48, 512)]
)
def test_too_few_long_bits(classes, bits, enough):
    with pytest.raises(
        UserError, match=f"long_bits={bits} is not .* give model.long_bits={enough}"
    ):
        long_centers(classes, bits, seeded())
    long_centers(classes, enough, seeded())


@pytest.mark.parametrize(
    ("classes", "bits"), [(24, 64), (24, 32), (24, 16), (80, 16), (7, 48), (4, 1)]
)
def test_short_centers(classes, bits):
    centers = short_centers(classes, bits, seeded())
    assert centers.shape == (classes, bits) and set(centers.unique().tolist()) <= {-1.0, 1.0}
    if bits & (bits - 1) == 0 and classes <= 2 * (bits - 1):
        assert len(centers.unique(dim=0)) == classes
        assert bool((centers.sum(1) == 0).all()), "a constant row"
    if (classes, bits) in [(24, 64), (24, 32)]:  # the first 24 of 64 rows would fail
        assert len(centers.unique(dim=1)[0]) == bits, "a bit that repeats another"


def test_two_way_of_undecided_bits():
    assert two_way(torch.tensor([[1.0, 0.0, -1.0]])).tolist() == [[0, 1, 0.5, 0.5, 1, 0]]


def test_projection_is_exact_on_the_centers(centers):
    long, short = centers
    transform = projection(long, short)
    assert transform.shape == (2 * LONG, 2 * SHORT)
    assert reproduced(transform, long, short) == 1.0
    assert reproduced(transform, long, -short) == 0.0
    pairs = torch.rand(5, LONG, generator=seeded())
    pairs = torch.stack([1 - pairs, pairs], 2).flatten(1)
    found = pair_softmax(pairs @ transform)
    for row in range(5):
        for bit in range(SHORT):
            score = sum(
                (pairs[row, 2 * i + 1] - pairs[row, 2 * i])
                * sum(long[c, i] * short[c, bit] for c in range(CLASSES))
                for i in range(LONG)
            )
            wanted = math.tanh(4.0 * float(score) / LONG / 2)
            assert float(found[row, 2 * bit + 1] - found[row, 2 * bit]) == pytest.approx(
                wanted, abs=1e-5
            )


def test_regression_is_the_ridge_solution(centers, label):
    long, short = centers
    ridge = 0.2
    rows, targets = [], []
    for labels in label:
        rows.append(np.sign(sum(long[c] for c in np.flatnonzero(labels)) + torch.zeros(LONG)))
        targets.append(np.sign(sum(short[c] for c in np.flatnonzero(labels)) + torch.zeros(SHORT)))
    x, t = (np.stack(part).astype(float) / math.sqrt(len(label)) for part in (rows, targets))
    augmented = np.concatenate([x, math.sqrt(ridge) * np.eye(LONG)])
    wanted = np.linalg.lstsq(augmented, np.concatenate([t, np.zeros((LONG, SHORT))]), rcond=None)[0]
    transform = regression(long, short, label, ridge)
    weight = (transform[1::2, 1::2] - transform[0::2, 1::2]) / 4.0
    np.testing.assert_allclose(weight.numpy(), wanted, atol=1e-5)
    assert torch.equal(transform[0::2, 0::2], transform[1::2, 1::2])
    assert torch.equal(transform[0::2, 1::2], -transform[1::2, 1::2])


def test_regression_does_not_care_for_order_or_labels_dtype(centers, label):
    long, short = centers
    wanted = regression(long, short, label, 0.1)
    torch.testing.assert_close(regression(long, short, label.flip(0).int(), 0.1), wanted)
    one = regression(long, short, torch.zeros(1, CLASSES), 0.1)
    assert bool((one == 0).all())  # nothing is known


def test_released_terms():
    matrix = torch.randn(2 * 3, 2 * 2, generator=seeded())
    training = ReleasedTransform(matrix, 10, ReleasedConfig(l1=0.01))
    long = two_way(torch.tensor([[1.0, -1, 1], [-1, -1, 1]]))
    short = two_way(torch.tensor([[1.0, 1], [-1, 1]]))
    terms = training.terms(long, short)
    bce = quan = 0.0
    for row in range(2):
        for bit in range(2):
            a, b = (long[row] @ matrix)[2 * bit : 2 * bit + 2].tolist()
            p = math.exp(b) / (math.exp(a) + math.exp(b))
            bce -= math.log(p if short[row, 2 * bit + 1] == 1 else 1 - p) / 4
            quan += (1 - (2 * p - 1) ** 2) / 4
    assert terms.bce.item() == pytest.approx(bce, rel=1e-5)
    assert terms.quan.item() == pytest.approx(quan, rel=1e-4)
    assert terms.l1.item() == pytest.approx(0.01 * sum(abs(v) for v in matrix.ravel().tolist()))
    before = training.matrix.detach().clone()
    training.step(long, short)  # at step 0 of the warm-up the rate is 0
    assert torch.equal(training.matrix, before)
    training.step(long, short)
    assert not torch.equal(training.matrix, before)


def float32_gradient(logits, target):
    """Return the gradient of 1 - mean(d²) + BCE with every operation rounded to float32.

    BCE's as PyTorch states it, (p - y) / max(p (1-p), 10⁻¹²), and softmax's p (g - Σ p g).
    """
    one, count = np.float32(1), np.float32(logits.size)
    gradient = np.zeros_like(logits)
    for row in range(len(logits)):
        for at in range(0, logits.shape[1], 2):
            z, y = logits[row, at : at + 2], target[row, at : at + 2]
            grown = np.exp(z - z.max())
            p = grown / grown.sum()
            slope = (p - y) / np.maximum((one - p) * p, np.float32(1e-12)) / count
            quan = -2 * (p[1] - p[0]) / (count / 2)
            slope = slope + quan * np.array([-1, 1], np.float32)
            gradient[row, at : at + 2] = p * (slope - (p * slope).sum(dtype=np.float32))
    return gradient


@pytest.mark.parametrize(
    ("distance", "least", "most"), [(2, 0, 1e-6), (8, 0, 1e-3), (15, 1e-4, 0.1), (25, 10, 1e12)]
)
def test_released_gradient_rounds_as_the_authors_does(distance, least, most):
    spread = distance * torch.tensor([1, 0.97, 0.94, 0.91])  # logits differ by these
    matrix = torch.stack([spread, torch.zeros(4)], 1).flatten()[None].repeat(2, 1)  # [2,8]
    long = two_way(torch.tensor([[-1.0]]))
    for code in (torch.ones(1, 4), -torch.ones(1, 4)):  # all pairs wrong, all right
        short = two_way(code)
        training = ReleasedTransform(matrix, 10, ReleasedConfig(l1=0))
        training.terms(long, short).total().backward()
        ours = training.matrix.grad[:1].numpy()
        wanted = float32_gradient(matrix[:1].numpy(), short.numpy())
        np.testing.assert_allclose(ours, wanted, rtol=1e-3, atol=1e-6)
        p = 1 / (1 + np.exp(-spread.double().numpy()))  # of the first of a pair
        exact = 2 * ((p - short[0, 0].item()) + 2 * (1 - 2 * p) * 2 * p * (1 - p)) / 8
        error = np.abs(ours[0, 1::2] + exact).max() / np.abs(exact).max()
        if bool((code > 0).all()):
            assert least <= error <= most


def test_released_training_repeats_and_stops_when_lossless(centers, label):
    long, short = centers
    config = ReleasedConfig(epochs=60, batch_size=16)
    matrix, history = released(long, short, label, config, seeded())
    again, same = released(long, short, label, config, seeded())
    assert torch.equal(matrix, again) and history == same and not matrix.requires_grad
    assert len(history["loss"]) == len(history["centre_bits"]) < 60
    assert history["centre_bits"][-1] == reproduced(matrix, long, short) == 1.0
    assert max(history["centre_bits"][:-1]) < 1.0
    other, _ = released(long, short, label, config, seeded(5))
    assert not torch.equal(matrix, other)


def test_one_released_epoch_of_one_row(centers, label):
    matrix, history = released(*centers, label[:1], ReleasedConfig(epochs=1), seeded())
    assert matrix.shape == (2 * LONG, 2 * SHORT) and len(history["loss"]) == 1
