"""``main.py metrics --compat``: what released codebases compute, beside the exact metrics."""

import argparse
import json
import math

import h5py
import numpy as np
import pytest
import scipy.io

import main
from common.codes import pack_codes
from common.metrics.compat.policies import POLICIES, compat_map
from runners.commands.metrics import add_options
from tests.common.metrics.compat.test_policies import ladder, random_sides

EVERY = [word for name in POLICIES for word in ("--compat", name)]


def save(folder, query, labels, database, database_labels):
    np.savez(folder / "q.npz", codes=query, labels=labels)
    np.savez(folder / "d.npz", codes=database, labels=database_labels)
    return ["--query", str(folder / "q.npz"), "--database", str(folder / "d.npz")]


def measured(capfd, *words):
    assert main.main(["metrics", *map(str, words), "--json", "-"]) == 0
    return json.loads(capfd.readouterr().out)["directions"]


def values(report):
    return {name: policy["map"] for name, policy in report["compat"].items()}


def average_precision(relevant, cut, kind):
    """Return AP of relevance by rank in a loop over ranks; None without a relevant row."""
    hits = precision = 0
    for rank, is_relevant in enumerate(relevant, 1):
        if hits == cut if kind == "relevant" else rank > cut:
            break
        if is_relevant:
            hits += 1
            precision += hits / rank
    return precision / hits if hits else None


@pytest.mark.parametrize("cut", [None, 9, 1000])
def test_every_policy_equals_loops_and_direct_calls(tmp_path, capfd, cut):
    sides = query, labels, database, database_labels = random_sides(seed=5)
    labels[:, 0] = database_labels[5, 0] = 1  # every query has a relevant row
    at = "all" if cut is None else str(cut)
    found = values(measured(capfd, *save(tmp_path, *sides), "--at", at, *EVERY)["q2d"])
    assert list(found) == list(POLICIES)
    orders = [np.argsort([np.sum(q != d) for d in database], kind="stable") for q in query]
    for name, by_cut in found.items():
        precisions = [
            average_precision(
                [bool(label @ database_labels[row]) for row in order],
                cut or len(database),
                "relevant" if name in ("kalenforn", "dchmt", "mith") else "ranks",
            )
            for label, order in zip(labels, orders, strict=True)
        ]
        mean = np.mean([value or 0.0 for value in precisions])
        assert by_cut == {at: pytest.approx(mean, rel=1e-12)}
        assert by_cut == {at: compat_map(name, *sides, at=cut)}


def test_the_other_keys_are_unchanged(tmp_path, capfd):
    words = [*save(tmp_path, *random_sides()), "--at", "all,3"]
    plain, report = (measured(capfd, *words, *more)["q2d"] for more in ([], EVERY))
    assert "compat" not in plain
    assert list(report["compat"]["mith"]["map"]) == ["all", "3"]
    assert report["compat"]["mith"]["computes"] == POLICIES["mith"].computes
    del report["compat"]
    assert report == plain


def test_zeros_and_real_values_are_taken_as_stored(tmp_path, capfd):
    query = np.array([[1.0, 1.0, 1.0]])
    zeros = np.array([[1.0, 1.0, -1.0], [1.0, 1.0, 0.0], [1.0, -1.0, 0.0]])  # 1, 1/2, 3/2
    real = np.array([[0.5, 0.5, 0.1], [2.0, -1.0, 0.5], [0.1, 0.2, 0.3]], np.float32)
    for rows in (zeros, real):
        sides = query, np.array([1]), rows, np.array([1, 0, 0])
        found = values(measured(capfd, *save(tmp_path, *sides), *EVERY)["q2d"])
        assert found == {name: {"all": compat_map(name, *sides)} for name in POLICIES}


def test_bits_in_every_format_are_read_as_plus_and_minus_one(tmp_path, capfd):
    sides = query, labels, database, database_labels = random_sides()
    labels[:, 0] = database_labels[5, 0] = 1
    whole = values(measured(capfd, *save(tmp_path, *sides), *EVERY)["q2d"])
    zero_one = save(tmp_path, query > 0, labels, (database > 0).astype(np.uint8), database_labels)
    assert values(measured(capfd, *zero_one, *EVERY)["q2d"]) == whole
    with h5py.File(tmp_path / "codes.h5", "w") as file:
        file.attrs.update({"bits": 12, "bit_order": "little", "split_hash": "x"})
        for name, codes, marks in (
            ("query", query, labels),
            ("database", database, database_labels),
        ):
            file[f"{name}/image"], file[f"{name}/labels"] = pack_codes(codes), marks
    run = measured(capfd, "--run", tmp_path / "codes.h5", *EVERY)
    assert values(run["i2i"]) == whole
    scipy.io.savemat(
        tmp_path / "both.mat",
        {"q_img": query, "q_txt": -query, "r_img": database, "r_txt": database, "q_l": labels,
         "r_l": database_labels},
    )  # fmt: skip
    mat = measured(capfd, "--mat", tmp_path / "both.mat", *EVERY)
    assert values(mat["i2t"]) == whole
    other = compat_map("fire", -query, labels, database, database_labels)
    assert values(mat["t2i"])["fire"] == {"all": other} != whole["fire"]


def test_a_mean_that_is_not_a_number(tmp_path, capfd):
    query, label, rows, labels = ladder([0, 1, 0, 0])
    words = save(tmp_path, np.repeat(query, 2, 0), np.array([1, 2]), rows, labels)
    report = measured(capfd, *words, "--compat", "kalenforn", "--compat", "mith")["q2d"]
    assert values(report) == {"kalenforn": {"all": None}, "mith": {"all": 1 / 4}}
    assert main.main(["metrics", *words, "--compat", "kalenforn"]) == 0
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    assert "│ mAP@all as kalenforn │ nan │ │ │" in lines


def test_rows_of_the_table_and_what_they_are(tmp_path, capfd):
    sides = ladder([0, 1, 0, 0, 1, 0])
    words = [*save(tmp_path, *sides), "--at", "2", "--compat", "mith", "--compat", "fire"]
    assert main.main(["metrics", *words]) == 0
    shown = capfd.readouterr().out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert f"│ mAP@2 as mith │ {(1 / 2 + 2 / 5) / 2:.4f} │ │ │" in lines
    assert "│ mAP@2 as fire │ 0.5000 │ │ │" in lines
    assert f"note: mith is {POLICIES['mith'].computes}; ties by row number" in shown


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (
            ["--compat", "dcmht"],
            "Unknown policy of --compat 'dcmht'. Did you mean 'dchmt'? Known: ",
        ),
        (["--compat", "mith", "--compat", ""], "Known: dchmt, deephash, fire, kalenforn, mith."),
        (["--compat", "mith", "--memory-mb", "0.001"], "about 1 MiB, and --memory-mb is 0.001;"),
        (["--compat", "deephash", "--at", "-1"], "A cut of mAP is '-1'"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(words, part, tmp_path, capfd):
    assert main.main(["metrics", *save(tmp_path, *random_sides()), *words]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert part in err


def test_blocks_change_nothing(tmp_path, capfd):
    words = [*save(tmp_path, *random_sides()), "--compat", "deephash"]
    whole = values(measured(capfd, *words)["q2d"])
    held = (7 + 60) * (8 * 12 + 4 * 4) + 64 * 60  # bytes
    blocks = values(measured(capfd, *words, "--memory-mb", 1.3 * held / 2**20)["q2d"])
    assert not math.isnan(whole["deephash"]["all"])
    assert blocks == {"deephash": {"all": pytest.approx(whole["deephash"]["all"], rel=1e-12)}}


def test_the_help_names_every_policy():
    parser = argparse.ArgumentParser()
    add_options(parser)
    assert ", ".join(POLICIES) in " ".join(parser.format_help().split())
