import numpy as np
import pytest
import torch

from common.metrics.compat.stable_order import stable_order
from utils.errors import UserError


def by_python(distance):
    return [sorted(range(len(row)), key=lambda i: (row[i], i)) for row in distance.tolist()]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int64, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 1), (4, 300)])
def test_ties_go_by_row_number(shape, dtype):
    distance = torch.randint(0, 5, shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    order = stable_order(distance)
    assert order.dtype == torch.int64
    assert order.tolist() == by_python(distance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.5, 1.0, 100.0, 50_000.0, 1e7, 1 / 3])
def test_halves_and_any_other_value(scale, dtype):
    """Keys of 8 bits, of 16, none for too wide a span and none for other fractions."""
    generator = torch.Generator().manual_seed(1)
    distance = ((torch.randint(-6, 7, (3, 80), generator=generator)) * scale).to(dtype)
    assert stable_order(distance).tolist() == by_python(distance)


def test_nearly_whole_values_are_not_rounded():
    distance = torch.tensor([[1e-7, 0.0, 5.0, -5.0, 5.0 + 1e-6, 5.0]])
    assert stable_order(distance).tolist() == [[3, 1, 0, 2, 5, 4]]
    far = torch.tensor([[2.0**24 + 2, 2.0**24, 2.0**24 + 2]])
    assert stable_order(far).tolist() == [[1, 0, 2]]
    high = torch.tensor([[2**40 + 1, 2**40, 2**40 + 1]])
    assert stable_order(high).tolist() == [[1, 0, 2]]


def test_longest_codes_fit_the_keys():
    generator = np.random.default_rng(2)
    distance = torch.from_numpy(generator.integers(0, 65_536, (2, 4000)) / 2)
    assert stable_order(distance).tolist() == by_python(distance)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_nothing_to_order(shape):
    assert stable_order(torch.zeros(shape)).shape == shape


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_has_no_order_is_refused(value):
    with pytest.raises(UserError, match="finite"):
        stable_order(torch.tensor([[0.0, value]]))
    with pytest.raises(UserError, match=r"\[Q,N\]"):
        stable_order(torch.zeros(3))
