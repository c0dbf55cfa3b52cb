import numpy as np
import pytest

from dataset.caption_noise import shuffled_captions
from dataset.loader import SplitView, ViewInputs


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_rows_is_handed_the_captions_of_others(share):
    rows = np.random.RandomState(0).permutation(500)[:200]
    caption_rows = shuffled_captions(rows, share, seed=3)
    moved = caption_rows != rows
    assert share * 200 - 5 <= moved.sum() <= share * 200  # a few may keep their own
    assert sorted(caption_rows[moved]) == sorted(rows[moved])  # among themselves
    np.testing.assert_array_equal(caption_rows, shuffled_captions(rows, share, seed=3))
    if share:
        assert (caption_rows != shuffled_captions(rows, share, seed=4)).any()


def test_a_share_is_rounded_down():
    rows = np.arange(100, 110)
    np.testing.assert_array_equal(shuffled_captions(rows, 0.19, seed=0), rows)  # one alone
    assert (shuffled_captions(rows, 0.39, seed=1) != rows).sum() in (0, 2, 3)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_rows_keep_their_own(count):
    rows = np.arange(count)
    np.testing.assert_array_equal(shuffled_captions(rows, 1.0, seed=0), rows)


def test_captions_move_and_all_else_stays():
    labels = np.eye(4, dtype=np.float32)
    ids = np.arange(8)[:, None]  # two captions a row: 2 r and 2 r + 1
    view = SplitView(
        np.array([3, 1]), labels,
        ViewInputs(tokens=(ids, np.zeros((8, 1), bool)), caption_offsets=np.arange(0, 9, 2)),
        caption_rows=np.array([1, 3]), extras={"row": np.arange(4)},
    )  # fmt: skip
    batch = view.__getitems__([0, 1])
    assert batch.text.flatten().tolist() == [2, 6]
    assert batch.label.argmax(1).tolist() == [3, 1] and batch.extras["row"].tolist() == [3, 1]


def test_other_views_bring_the_same_positions():
    labels = np.eye(4, dtype=np.float32)
    pooled = np.arange(4, dtype=np.float32)[:, None]
    other = SplitView(np.array([2, 0]), labels, ViewInputs(text_features=(pooled, None, None)))
    view = SplitView(np.array([3, 1]), labels, auxiliary={"second": other})
    batch = view.__getitems__([1, 0]).to("cpu")
    assert batch.auxiliary["second"].text_features.pooled.flatten().tolist() == [0, 2]
    with pytest.raises(ValueError, match="'second' has 2 positions, not 1"):
        SplitView(np.array([3]), labels, auxiliary={"second": other})
