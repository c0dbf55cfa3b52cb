"""Split rules: equal to the reference, disjoint where they must be, clear when they cannot."""

from pathlib import Path

import numpy as np
import pytest

from dataset.splits import SplitConfig, SplitManifest, make_split
from utils.errors import UserError

SHARED = Path(__file__).parents[3] / "shared"


def one_hot(n: int, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[np.arange(n) % classes]


def test_permutation_equals_the_recorded_reference():
    golden = SHARED / "golden/xmodal/split_a.npz"
    if not golden.parent.is_dir():
        pytest.skip(f"{golden.parent} is absent")
    case = np.load(golden)
    config = SplitConfig(
        seed=int(case["cfg_seed"]),
        query=int(case["cfg_query_num"]),
        train=int(case["cfg_train_num"]),
    )
    split = make_split(config, one_hot(int(case["in_n"]), 3))
    np.testing.assert_array_equal(split.query, case["out_query"])
    np.testing.assert_array_equal(split.train, case["out_train"])
    np.testing.assert_array_equal(split.database, case["out_retrieval"])


@pytest.mark.parametrize("seed", [0, 1, 1814])
def test_permutation_is_numpys_and_leaves_the_global_state_alone(seed):
    np.random.seed(seed)
    order = np.random.permutation(100)
    state = np.random.get_state()[1].copy()
    split = make_split(SplitConfig(seed=seed, query=10), one_hot(100, 4))
    np.testing.assert_array_equal(split.query, order[:10])
    np.testing.assert_array_equal(split.train, order[10:])
    np.testing.assert_array_equal(split.database, order[10:])
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_training_rows_can_be_kept_out_of_the_database():
    split = make_split(SplitConfig(query=10, train=20, train_in_database=False), one_hot(100, 4))
    assert split.counts == {"train": 20, "val": 0, "query": 10, "database": 70}
    assert not np.intersect1d(split.train, split.database).size


def test_per_class_draws_the_same_number_of_each():
    labels = one_hot(200, 4)
    split = make_split(SplitConfig(rule="per_class", query=5, train=20), labels)
    assert labels[split.query].sum(0).tolist() == [5] * 4
    assert labels[split.train].sum(0).tolist() == [20] * 4
    np.testing.assert_array_equal(split.database, np.setdiff1d(np.arange(200), split.query))


def test_per_class_with_several_labels_takes_a_row_once():
    labels = (np.random.default_rng(0).random((300, 5)) < 0.4).astype(np.float32)
    split = make_split(SplitConfig(rule="per_class", query=6, train=10), labels)
    assert split.counts == {"train": 50, "val": 0, "query": 30, "database": 270}


def test_defaults_work_for_a_small_folder():
    labels = one_hot(23, 2)
    split = make_split(SplitConfig(rule="per_class"), labels)
    assert split.counts == {"train": 21, "val": 0, "query": 2, "database": 21}
    lonely = np.concatenate([labels, [[0, 0]]]) @ np.eye(2, 3, dtype=np.float32)
    lonely[-1, 2] = 1  # a class of one picture is no query
    assert 23 not in make_split(SplitConfig(rule="per_class"), lonely).query


@pytest.mark.parametrize("in_database", [True, False])
def test_seen_unseen(in_database):
    labels = one_hot(100, 5)
    config = SplitConfig(rule="seen_unseen", query=4, train=10, train_in_database=in_database)
    split = make_split(config, labels, seen_classes=(0, 1, 2))
    assert labels[split.train].sum(0).tolist() == [10, 10, 10, 0, 0]
    assert labels[split.query].sum(0).tolist() == [0, 0, 0, 4, 4]
    assert len(split.database) == 100 - 8 - (0 if in_database else 30)


def test_a_row_with_an_unseen_label_is_not_trained_on():
    labels = one_hot(40, 4)
    labels[:20, 3] = 1
    split = make_split(SplitConfig(rule="seen_unseen", query=2), labels, seen_classes=(0, 1, 2))
    assert (labels[split.train, 3] == 0).all()


def test_file_rule_and_round_trip(tmp_path):
    labels = one_hot(50, 2)
    manifest = make_split(SplitConfig(query=5, train=10), labels).with_val(3, seed=0)
    manifest.save(tmp_path / "split.npz")
    again = SplitManifest.load(tmp_path / "split.npz")
    assert again.hash == manifest.hash and again.rule == manifest.rule and len(again.val) == 3
    config = SplitConfig(rule="file", file="split.npz", query=7)
    assert make_split(config, labels, root=tmp_path).hash == manifest.hash


def test_a_changed_file_is_found_out(tmp_path):
    manifest = make_split(SplitConfig(query=5), one_hot(50, 2))
    parts = {"train": manifest.train, "query": manifest.query[::-1], "database": manifest.database}
    np.savez(tmp_path / "s.npz", **parts, hash=np.array(manifest.hash))
    with pytest.raises(UserError, match="changed or damaged"):
        SplitManifest.load(tmp_path / "s.npz")


def test_without_takes_rows_out_of_every_part():
    split = make_split(SplitConfig(query=5, train=10), one_hot(50, 2))
    bad = np.array([split.query[0], split.train[0]])
    remaining = split.without(bad)
    assert remaining.counts == {"train": 9, "val": 0, "query": 4, "database": 44}
    assert split.without(bad[:0]) is split


def test_hash_depends_on_order_and_part():
    one = SplitManifest(np.array([0, 1]), np.array([2]), np.array([3]))
    two = SplitManifest(np.array([1, 0]), np.array([2]), np.array([3]))
    three = SplitManifest(np.array([0]), np.array([1, 2]), np.array([3]))
    assert len({one.hash, two.hash, three.hash}) == 3
    assert one.describe() == "train 2, val 0, query 1, database 1"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SplitConfig(query=50), r"dataset.split.query=50 ask for more rows than the 50"),
        (SplitConfig(query=10, train=45), r"query=10 and dataset.split.train=45 .* the 50"),
        (SplitConfig(query=0), "dataset.split.query=0: at least one"),
        (SplitConfig(query=5, train=45, train_in_database=False), "no database row"),
        (SplitConfig(seed=-1), "dataset.split.seed=-1"),
        (SplitConfig(rule="permutatoin"), "Did you mean 'permutation'"),
        (
            SplitConfig(rule="per_class", query=26),
            r"query=26 rows per class, but class 0 has only 25",
        ),
        (SplitConfig(rule="per_class", query=5, train=21), "class 0 has only 20"),
        (SplitConfig(rule="seen_unseen"), "0 of the 2 classes are said to be seen"),
        (SplitConfig(rule="file"), "needs dataset.split.file"),
        (SplitConfig(file="s.npz"), "read only with dataset.split.rule=file"),
        (SplitConfig(rule="file", file="none.npz"), "none.npz' does not exist"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(config, message, tmp_path):
    with pytest.raises(UserError, match=message):
        make_split(config, one_hot(50, 2), root=tmp_path)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": [0], "query": [1]}, "lacks database"),
        ({"train": [0], "query": [0], "database": [1]}, "1 rows in both query and train, row 0"),
        ({"train": [0], "query": [1], "database": [0, 1]}, "both query and database"),
        ({"train": [0], "query": [1], "database": [2], "val": [1]}, "both val and query"),
        ({"train": [0], "query": [1], "database": [9]}, "row 9, but the dataset has 6 rows"),
        ({"train": [0], "query": [1], "database": [6]}, r"row 6, but .* 6 rows \(0 to 5\)"),
        ({"train": [0], "query": [1], "database": [-1]}, "row -1"),
        ({"train": [-6], "query": [1], "database": [2]}, "train row -6"),
        ({"train": [0, 2], "query": [1], "database": [3], "val": [2]}, "both val and train, row 2"),
        ({"train": [0], "query": [1, 1], "database": [2]}, "query row 1 twice"),
        ({"train": [0.5], "query": [1], "database": [2]}, "'train' in split file .* float64"),
        ({"train": [[0]], "query": [1], "database": [2]}, r"shape \(1, 1\)"),
        ({"train": [], "query": [1], "database": [2]}, "no train row"),
    ],
)
def test_bad_split_files(parts, message, tmp_path):
    np.savez(tmp_path / "s.npz", **{key: np.array(rows) for key, rows in parts.items()})
    with pytest.raises(UserError, match=message):
        make_split(SplitConfig(rule="file", file="s.npz"), one_hot(6, 2), root=tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a zip", "pickle"])
def test_files_that_are_no_split(content, tmp_path):
    path = tmp_path / "s.npz"
    if content == "pickle":
        np.savez(
            path, train=np.array([{}], dtype=object), query=np.arange(2), database=np.arange(2)
        )
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match="no .npz of plain number arrays"):
        SplitManifest.load(path)


def test_shares_of_rows():
    labels = one_hot(100, 2)
    by_share = make_split(SplitConfig(query=0.29, train=0.5), labels)
    by_number = make_split(SplitConfig(query=29, train=35), labels)
    assert by_share.hash == by_number.hash
    per_class = SplitConfig(rule="per_class", query=0.01, train=0.5)
    assert make_split(per_class, labels).counts == {
        "train": 48, "val": 0, "query": 2, "database": 98,
    }  # fmt: skip


@pytest.mark.parametrize(("share", "said"), [(0.0, "a share"), (1.0, "a share"), (0, "at least")])
def test_shares_that_are_none(share, said):
    with pytest.raises(UserError, match=said):
        make_split(SplitConfig(query=share), one_hot(100, 2))


@pytest.mark.parametrize("size", [1, 7, 39])
def test_validation_rows_leave_the_training_rows(size):
    split = make_split(SplitConfig(query=10), one_hot(50, 2))
    drawn = {seed: split.with_val(size, seed) for seed in (0, 1)}
    for seed, cut in drawn.items():
        assert len(cut.val) == size and not np.intersect1d(cut.val, cut.train).size
        assert sorted([*cut.val, *cut.train]) == sorted(split.train)
        assert [row for row in split.train if row in cut.train] == cut.train.tolist()  # in order
        assert cut.hash == split.with_val(size, seed).hash != split.hash
        np.testing.assert_array_equal(cut.query, split.query)
        np.testing.assert_array_equal(cut.database, split.database)
        cut.check(50)
    assert drawn[0].val.tolist() != drawn[1].val.tolist()
    with pytest.raises(UserError, match="leaves no training row of the 40"):
        split.with_val(40, 0)
    assert split.with_val(0, 0) is split


@pytest.mark.parametrize("rule", ["permutation", "per_class", "seen_unseen"])
def test_the_seed_decides_the_draw(rule):
    def parts(seed):
        config = SplitConfig(rule=rule, seed=seed, query=3, train=4)
        split = make_split(config, one_hot(60, 4), (0, 1, 2))
        return split.query.tolist(), split.train.tolist()

    assert parts(0) == parts(0)
    for one, other in zip(parts(0), parts(1), strict=True):
        assert one != other
