"""Sources and arrays one after the other: as if they had been copied together."""

import numpy as np
import pytest

from dataset.base import ArrayImages
from dataset.stacked import StackedImages, sources_of, stack


def arrays():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (n, 2, 2, 3), dtype=np.uint8) for n in (4, 1, 3)]


def test_rows_are_those_of_the_whole():
    parts = arrays()
    whole, ours = np.concatenate(parts), stack(parts)
    assert ours.shape == whole.shape and ours.dtype == whole.dtype and len(ours) == 8
    for rows in ([7, 0, 4, 4, 3], [], [5], list(range(8))):
        at = np.array(rows, np.int64)
        assert np.array_equal(ours[at], whole[at])


def test_one_none_and_misfits():
    one = arrays()[0]
    assert stack([one]) is one
    assert stack([one, None]) is None
    with pytest.raises(ValueError, match="do not stack"):
        stack([one, np.zeros((2, 3), np.uint8)])


def test_pictures():
    parts = arrays()
    sources = [ArrayImages(array, str(i)) for i, array in enumerate(parts)]
    stacked = StackedImages(sources)
    whole = np.concatenate(parts)
    assert len(stacked) == 8
    assert all(np.array_equal(stacked.decode(row), whole[row]) for row in range(8))
    assert stacked.name(4) == "picture 0" and stacked.name(7) == "picture 2"
    assert stacked.fingerprint == StackedImages(sources).fingerprint
    assert stacked.fingerprint != StackedImages(sources[::-1]).fingerprint
    assert sources_of(stacked) == tuple(sources) and sources_of(sources[0]) == (sources[0],)
