import numpy as np
import pytest
import torch

from common.codes import as_codes, pack_codes, sign, unpack_codes
from utils.errors import UserError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int8])
def test_sign_of_zero_is_plus_one(dtype):
    x = torch.tensor([-2, 0, 3], dtype=dtype)
    assert sign(x).tolist() == [-1, 1, 1]
    assert sign(x).dtype == dtype
    assert sign(torch.tensor([-0.0])).item() == 1


@pytest.mark.parametrize("bits", [1, 7, 8, 48, 1000])
@pytest.mark.parametrize("rows", [1, 5])
def test_pack_round_trip(bits, rows):
    codes = np.random.default_rng(bits).choice(np.array([-1, 1], np.int8), (rows, bits))
    packed = pack_codes(codes)
    assert packed.shape == (rows, -(-bits // 8))
    assert packed.dtype == np.uint8
    restored = unpack_codes(packed, bits)
    assert restored.dtype == np.int8
    np.testing.assert_array_equal(restored, codes)
    for k in range(bits):  # LSB first: bit k is bit k % 8 of byte k // 8
        np.testing.assert_array_equal(packed[:, k // 8] >> (k % 8) & 1, codes[:, k] > 0)


def test_packing_pads_with_zero_bits():
    assert pack_codes(np.ones((1, 3)))[0, 0] == 0b111


@pytest.mark.parametrize(
    "array",
    [
        [[-1, 1, 1]],
        [[0, 1, 1]],
        [[False, True, True]],
        [[-0.2, 0.0, 4.5]],
        [[-np.inf, 1.0, np.inf]],
        np.array([[-3, 0, 9]], np.int64),
        np.array([[0, 1, 1]], np.uint8),
        torch.tensor([[-1.0, 1.0, 0.5]], dtype=torch.bfloat16),
        torch.tensor([[-1.0, 1.0, 0.5]], requires_grad=True),
    ],
)
def test_every_way_of_writing_a_code(array):
    codes = as_codes(array)
    assert codes.dtype == np.int8
    assert codes.tolist() == [[-1, 1, 1]]


@pytest.mark.parametrize(
    ("array", "word"),
    [
        ([[np.nan, 1.0]], "NaN"),
        ([["a", "b"]], "type"),
        ([[1 + 2j]], "type"),
        (np.array([[3, 255]], np.uint8), "packed"),
    ],
)
def test_what_is_no_code_is_refused(array, word):
    with pytest.raises(UserError, match=word):
        as_codes(array)


@pytest.mark.parametrize(
    ("packed", "bits"),
    [
        (np.zeros((2, 2), np.uint8), 8),
        (np.zeros((2, 1), np.int8), 8),
        (np.zeros(3, np.uint8), 8),
        (np.zeros((2, 0), np.uint8), 0),
    ],
)
def test_packed_codes_must_fit_their_bits(packed, bits):
    with pytest.raises(UserError, match="Packed codes"):
        unpack_codes(packed, bits)
