import numpy as np
import pytest

from common.codes import unpack_codes
from common.metrics.packed import pack_rows, planes
from utils.errors import UserError


@pytest.mark.parametrize("bits", [1, 8, 48, 65])
def test_rows_are_packed_without_loss(bits):
    rng = np.random.default_rng(0)
    codes, labels = rng.choice([-1, 1], (5, bits)), rng.random((5, 11)) < 0.5
    rows = pack_rows(codes, labels)
    np.testing.assert_array_equal(unpack_codes(rows.codes, rows.bits), codes)
    np.testing.assert_array_equal(unpack_codes(rows.labels, rows.classes) > 0, labels)
    part = rows.select(slice(1, 3))
    assert len(part) == 2
    np.testing.assert_array_equal(unpack_codes(part.codes, bits), codes[1:3])


def test_class_numbers_stay_numbers():
    rows = pack_rows([[1], [-1]], np.array([3, 9], np.uint8))
    assert rows.classes is None and rows.labels.dtype == np.int64
    assert rows.labels.tolist() == [3, 9]


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
@pytest.mark.parametrize("width", [1, 4, 5, 8, 17])
def test_planes_hold_the_bytes_in_order(dtype, width):
    packed = np.random.default_rng(0).integers(0, 256, (6, width), dtype=np.uint8)
    words = planes(packed, dtype)
    assert words.flags.c_contiguous and words.dtype == dtype
    size = np.dtype(dtype).itemsize
    for w, plane in enumerate(words):
        for row, word in enumerate(plane):
            part = packed[row, w * size : (w + 1) * size]
            assert int(word) == sum(int(byte) << (8 * i) for i, byte in enumerate(part))


@pytest.mark.parametrize(
    ("codes", "labels", "word"),
    [
        (np.ones((0, 4)), np.ones((0, 2)), "at least one row"),
        (np.ones(4), np.ones(4), r"\[N,K\]"),
        (np.ones((3, 4)), np.ones(2, int), "3 rows of codes and 2"),
        (np.full((1, 4), np.nan), [1], "NaN"),
        ([[1, -1]], [[2, 0]], "other than 0 and 1"),
        ([[1, -1]], [[np.nan, 0]], "other than 0 and 1"),
    ],
)
def test_what_is_no_codes_with_labels_is_refused(codes, labels, word):
    with pytest.raises(UserError, match=word):
        pack_rows(codes, labels)


def test_strict_takes_signs_and_zeros_only():
    assert len(pack_rows([[1, -1, 0]], [1], strict=True)) == 1
    with pytest.raises(UserError, match=r"0\.5"):
        pack_rows([[1, -1, 0.5]], [1], strict=True)
