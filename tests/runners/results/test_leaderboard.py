"""What a set of runs says together: means, deviations, and which runs belong in one row."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import main
from common.storage.run_folder import RunFolder
from dataset.splits import SplitManifest
from runners.evaluation.query_ap import write_query_ap
from runners.results.leaderboard import collect, find_runs, rank_methods, summarize, write_csv
from runners.results.renderers import print_tables
from runners.results.show import plot_curves
from tests.helpers import write_no_codes
from utils.errors import UserError


def write_run(
    root: Path, score: float, seed: int = 0, method: str = "csq", bits: int = 16, **more
) -> Path:
    """Write the folder of a finished run with the given mAP, without having trained."""
    keys = {"dataset": "toy", "backbone": "pixels", "direction": "i2i", "split": "abc", **more}
    folder = root / f"{len(list(root.glob('*')))}-{method}"
    folder.mkdir(parents=True)
    config = {
        "method": method, "bits": bits, "seed": seed, "output": str(root), "plugins": [],
        "dataset": {"config": keys["dataset"]},
        "loss": {"name": method, "alpha": keys.get("alpha", 1), "beta": keys.get("beta")},
        "data": {"workers": seed}, "runner": {"threads": seed, "device": f"cuda:{seed}"},
    }  # fmt: skip
    report = {
        "map": {"all": {"expected": score, "worst": score - 0.1, "best": score + 0.1}},
        "pr_rank": {"recall": [0.0, 1.0], "precision": [1.0, 0.5]},
    }
    if "compat" in keys:
        report["compat"] = keys["compat"]
    metrics = {
        "run": {"method": method, "bits": bits, "seed": seed, "dataset": keys["dataset"],
                "backbone": keys["backbone"]},
        "protocol": {
            "selected": {"on": "val", "epoch": 3, "score": 0.5, "per": keys.get("per", "run")}
        },
        "split_hash": keys["split"], "directions": {keys["direction"]: report},
        "timing": {"time_s": 0.1, "train_s": 2.0 + seed},
    }  # fmt: skip
    if "zero_shot" in keys:
        metrics["zero_shot"] = {"directions": {keys["direction"]: keys["zero_shot"]}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "status.json").write_text(json.dumps({"state": more.get("state", "done")}))
    write_no_codes(folder / "codes.h5")
    return folder


def rows_of(root: Path):
    return summarize(collect(find_runs(root)))


def test_mean_and_deviation_over_seeds(tmp_path):
    for seed, score in enumerate((0.5, 0.6, 0.8)):
        write_run(tmp_path, score, seed)
    (row,) = rows_of(tmp_path)
    assert row.seeds == 3 and row.variant == ""
    assert row.mean == pytest.approx((0.5 + 0.6 + 0.8) / 3)
    mean = row.mean
    assert row.std == pytest.approx(
        (((0.5 - mean) ** 2 + (0.6 - mean) ** 2 + (0.8 - mean) ** 2) / 2) ** 0.5
    )
    assert row.tie_band == pytest.approx(0.2) and row.train_s == pytest.approx(3.0)
    assert (row.selected_on, row.split_hashes) == ("val", ("abc",))


def test_one_seed_has_no_deviation(tmp_path):
    write_run(tmp_path, 0.5)
    assert rows_of(tmp_path)[0].std is None


def test_what_is_not_averaged(tmp_path):
    for more in (
        {}, {"method": "itq"}, {"bits": 32}, {"dataset": "other"}, {"direction": "i2t"},
        {"backbone": "clip"},
    ):  # fmt: skip
        write_run(tmp_path, 0.5, **more)
    assert [row.seeds for row in rows_of(tmp_path)] == [1] * 6


def test_variants_are_told_apart_by_what_differs(tmp_path):
    for seed, alpha in ((0, 1), (1, 1), (0, 2)):
        write_run(tmp_path, 0.5, seed, alpha=alpha)
    assert [(row.variant, row.seeds) for row in rows_of(tmp_path)] == [
        ("alpha 1", 2), ("alpha 2", 1),
    ]  # fmt: skip


def test_only_finished_runs_count(tmp_path):
    write_run(tmp_path, 0.5)
    write_run(tmp_path, 0.9, state="failed")
    assert [row.mean for row in rows_of(tmp_path)] == [0.5]


def test_no_runs(tmp_path):
    with pytest.raises(UserError, match="holds no finished run; run train or sweep with output="):
        find_runs(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        find_runs(tmp_path / "gone")


def test_csv(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, 0.5 + seed / 4, seed, split=f"split{seed}")
    write_csv(rows_of(tmp_path), tmp_path / "board.csv")
    with open(tmp_path / "board.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["dataset"], row["method"], row["bits"], row["seeds"]) == ("toy", "csq", "16", "2")
    assert float(row["mean"]) == 0.625 and float(row["std"]) == pytest.approx(0.1767766953)
    assert row["split_hashes"] == "split0;split1"


def test_the_table(tmp_path, capsys):
    for method, bits, score in (("csq", 16, 0.5), ("csq", 32, 0.75), ("itq", 16, 0.625)):
        write_run(tmp_path, score, method=method, bits=bits)
    write_run(tmp_path, 0.7, 1, method="itq")
    print_tables(rows_of(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert "toy  i2i  mAP@all (mean ± std over seeds)" in lines[0]
    assert any("16 bits" in line and "32 bits" in line for line in lines)
    csq, itq = (next(line for line in lines if f" {m} " in line) for m in ("csq", "itq"))
    assert "0.5000" in csq and "0.7500" in csq
    assert "0.6625 ± 0.0530" in itq and "–" in itq
    assert lines.index(csq) < lines.index(itq)  # by the best score of each
    assert any("split abc" in line for line in lines)


def test_plots(tmp_path):
    write_run(tmp_path, 0.5)
    write_run(tmp_path, 0.5, method="a$b_c")
    (file,) = plot_curves(collect(find_runs(tmp_path)), tmp_path / "plots")
    assert file.name == "pr-toy-i2i-16bit.png" and file.read_bytes().startswith(b"\x89PNG")


def test_report_command(tmp_path, capsys):
    write_run(tmp_path, 0.5)
    assert main.main(["report", str(tmp_path), "--csv", str(tmp_path / "deep" / "board.csv")]) == 0
    assert "csq" in capsys.readouterr().out and (tmp_path / "deep" / "board.csv").is_file()


def test_results_know_their_folder(tmp_path):
    folder = write_run(tmp_path, 0.5)
    (result,) = collect([RunFolder(folder)])
    assert (result.folder, result.selected_on) == (folder, "val")
    assert result.metrics["protocol"]["selected"]["epoch"] == 3


def write_queries(folder: Path, values: np.ndarray) -> None:
    write_query_ap(folder, {"i2i": values.astype(np.float32)})


def test_what_is_not_distinguishable_from_the_best_is_marked(tmp_path, capsys):
    rng = np.random.default_rng(0)
    easy = rng.random(300)  # some queries are easy for every method
    for method, mean in (("best", 0.60), ("near", 0.599), ("far", 0.40)):
        for seed in range(3):
            queries = mean + 0.1 * easy + 0.02 * rng.standard_normal(300)
            write_queries(write_run(tmp_path, float(queries.mean()), seed, method), queries)
    rows = {row.method: row for row in rows_of(tmp_path)}
    best = max(rows.values(), key=lambda row: row.mean).method
    near = ({"best", "near"} - {best}).pop()
    assert [rows[name].alike for name in (best, near, "far")] == [None, True, False]
    assert rows["far"].p_queries < 1e-6 and rows["far"].p_seeds < 0.05
    assert 0 < rows["far"].std < rows["far"].ci95
    print_tables(list(rows.values()))
    printed = capsys.readouterr().out
    line = {n: next(t for t in printed.splitlines() if f" {n} " in t and "±" in t) for n in rows}
    assert "≈" in line[near] and "≈" not in line["far"] and "≈" not in line[best]
    assert "≈ not distinguishable from the best" in printed
    write_csv(list(rows.values()), tmp_path / "board.csv")
    with open(tmp_path / "board.csv", newline="") as stream:
        written = {row["method"]: row for row in csv.DictReader(stream)}
    assert written[near]["alike"] == "True" and written[best]["p_queries"] == ""


def test_ranks_over_datasets_are_printed_and_drawn(tmp_path, capsys):
    for dataset in ("one", "two", "three"):
        for i, method in enumerate(("csq", "itq", "lsh")):
            for bits in (16, 32):
                write_run(tmp_path, 0.8 - i / 10, method=method, bits=bits, dataset=dataset)
    write_run(tmp_path, 0.99, method="elsewhere", dataset="one")
    assert main.main(["report", str(tmp_path), "--plots", str(tmp_path / "plots")]) == 0
    printed = capsys.readouterr().out
    assert "average rank over 3 datasets: csq 1.00, itq 2.00, lsh 3.00" in printed
    assert "critical difference 1.91 (Nemenyi, 5 %)" in printed
    assert (tmp_path / "plots" / "ranks.png").read_bytes().startswith(b"\x89PNG")
    assert rank_methods(rows_of(tmp_path)).datasets == 3
    assert rank_methods([]) is None


def measured(all_classes, unseen_only=None, harmonic=None):
    """Return the zero-shot measures of a direction, as ``metrics.json`` holds them."""
    cuts = {"all": {"expected": all_classes, "worst": 0.0, "best": 1.0}}
    report = {"all_classes": cuts}
    if unseen_only is not None:
        report["unseen_only"] = {"all": {**cuts["all"], "expected": unseen_only}}
    if harmonic is not None:
        report["generalised"] = {"unseen": cuts, "seen": cuts, "harmonic": {"all": harmonic}}
    return report


def test_zero_shot_measures_have_columns(tmp_path, capsys):
    for seed, scores in enumerate(((0.25, 0.5, 0.375), (0.75, 0.5, 0.625))):
        write_run(tmp_path, scores[0], seed, zero_shot=measured(*scores))
    write_run(tmp_path, 0.375, method="itq", zero_shot=measured(0.375, 0.75))
    write_run(tmp_path, 0.9, method="old")  # measured before there was such a thing
    write_run(tmp_path, 0.3, bits=32, backbone="clip[x]", zero_shot=measured(0.3, 0.4, 0.35))
    rows = {(row.method, row.bits): row for row in rows_of(tmp_path)}
    csq, itq, old = (rows[name, 16] for name in ("csq", "itq", "old"))
    assert (csq.all_classes, csq.unseen_only, csq.harmonic) == (0.5, 0.5, 0.5)
    assert csq.all_classes_std == pytest.approx(0.125**0.5) and csq.unseen_only_std == 0
    assert (itq.unseen_only, itq.unseen_only_std, itq.harmonic) == (0.75, None, None)
    assert old.all_classes is old.unseen_only is old.harmonic is None
    print_tables(list(rows.values()))
    printed = capsys.readouterr().out
    table = printed[printed.index("zero-shot mAP@all") :].splitlines()
    assert [word in table[2] for word in ("all classes", "unseen only", "harmonic mean")]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table if "│" in line]
    assert cells == [
        ["16", "csq [pixels]", "0.5000 ± 0.3536", "0.5000 ± 0.0000", "0.5000 ± 0.1768"],
        ["16", "itq [pixels]", "0.3750", "0.7500", "–"],
        ["32", "csq [clip[x]]", "0.3000", "0.4000", "0.3500"],
    ]
    write_csv(list(rows.values()), tmp_path / "board.csv")
    with open(tmp_path / "board.csv", newline="") as stream:
        written = {(row["method"], row["bits"]): row for row in csv.DictReader(stream)}
    assert float(written["csq", "16"]["harmonic"]) == 0.5
    assert written["itq", "16"]["harmonic"] == "" == written["old", "16"]["all_classes"]


def test_a_measure_that_one_seed_lacks_is_no_mean(tmp_path, capsys):
    write_run(tmp_path, 0.25, 0, zero_shot=measured(0.25, 0.5))
    write_run(tmp_path, 0.75, 1)
    (row,) = rows_of(tmp_path)
    assert row.mean == 0.5 and row.all_classes is None
    print_tables([row])
    assert "zero-shot" not in capsys.readouterr().out


def test_queries_are_paired_whatever_rows_were_trained_on(tmp_path):
    rng, rows = np.random.default_rng(0), np.arange(60)
    base = rng.uniform(0.4, 0.6, 40)
    splits = {  # validation rows; queries in another order; another database
        "csq": SplitManifest(rows[:10], rows[:40], rows[40:], val=rows[10:12]),
        "itq": SplitManifest(rows[:12], rows[:40], rows[40:]),
        "lsh": SplitManifest(rows[:12], rows[39::-1], rows[40:]),
        "dhn": SplitManifest(rows[:12], rows[:40], rows[41:]),
    }
    for method, split in splits.items():
        values = base + 0.1 * (method == "csq") + rng.normal(0, 0.01, 40)
        folder = write_run(tmp_path, float(values.mean()), method=method, split=split.hash)
        split.save(folder / "split.npz")
        write_query_ap(folder, {"i2i": values.astype(np.float32)})
    tested = {row.method: row.p_queries for row in rows_of(tmp_path)}
    assert tested["itq"] is not None and tested["itq"] < 1e-6
    assert tested["lsh"] is None and tested["dhn"] is None


def test_measures_of_releases_are_columns(tmp_path, capsys):
    for seed, value in enumerate((0.25, 0.75)):
        write_run(tmp_path, 0.5, seed, compat={"fire@10": value, "mith@all": None}, per="cut")
    write_run(tmp_path, 0.4, method="itq")
    rows = rows_of(tmp_path)
    print_tables(rows)
    printed = capsys.readouterr().out
    csq, itq = (
        next(x for x in printed.splitlines() if f"│ {name} " in x) for name in ("csq", "itq")
    )
    assert "0.5000 ± 0.3536" in csq and "val, per cut" in csq
    assert csq.count("–") == 0 and itq.count("–") == 1  # mith@all is NaN: no column
    assert "16 bits" in printed and "fire@10" in printed and "mith@all" not in printed
    write_csv(rows, tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="") as stream:
        written = {row["method"]: row for row in csv.DictReader(stream)}
    assert written["csq"]["release_measures"] == "fire@10=0.5"
    assert (
        written["csq"]["selected_on"] == "val, per cut" and written["itq"]["release_measures"] == ""
    )


def test_a_leaderboard_is_of_map_at_all_whatever_cut_comes_first(tmp_path):
    for method in ("csq", "itq"):
        write_run(tmp_path, 0.5, method=method)
    (cut_first,) = tmp_path.glob("*-itq")
    metrics = json.loads((cut_first / "metrics.json").read_text())
    report = metrics["directions"]["i2i"]
    at_five = {"expected": 0.9, "worst": 0.9, "best": 0.9}
    report["map"] = {"5": at_five, **report["map"]}
    (cut_first / "metrics.json").write_text(json.dumps(metrics))
    assert [row.mean for row in rows_of(tmp_path)] == [0.5, 0.5]
    del report["map"]["all"]  # only what a run has can be shown
    (cut_first / "metrics.json").write_text(json.dumps(metrics))
    assert [row.mean for row in rows_of(tmp_path)] == [0.5, 0.9]


def test_methods_are_compared_within_their_dataset_direction_and_code_length(tmp_path):
    columns = [
        {"bits": 16}, {"bits": 32}, {"bits": 16, "direction": "t2t"},
        {"bits": 16, "dataset": "other"},
    ]  # fmt: skip
    for column, offset in zip(columns, (0.2, 0.4, 0.6, 0.7), strict=True):
        for method, worse in (("csq", 0.0), ("itq", 0.1), ("lsh", 0.0001)):
            for seed, chance in enumerate((0.0, 0.002, -0.001)):
                noise = 0.0005 * (seed == 1) if method == "lsh" else 0.0
                score = offset - worse + chance + noise
                write_run(tmp_path, score, seed, method, **column)
    rows = rows_of(tmp_path)
    assert len(rows) == 12
    for row in rows:  # in every column csq and lsh cannot be told apart, itq can
        best = max(
            (r for r in rows if (r.dataset, r.direction, r.bits)
             == (row.dataset, row.direction, row.bits)), key=lambda r: r.mean,
        )  # fmt: skip
        if row is best:
            assert row.alike is None and row.p_seeds is None
        else:
            assert row.alike is (row.method != "itq"), row
