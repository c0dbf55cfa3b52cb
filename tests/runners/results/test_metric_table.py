"""What is printed of a measurement: the cuts that were asked for, the numbers in metrics.json."""

import main
from runners.results.metric_table import print_cuts
from tests.helpers import QUICK, run


def band(expected):
    return {"expected": expected, "worst": expected - 0.01, "best": expected + 0.01}


def test_every_cut_of_every_direction_is_printed(capsys):
    directions = {
        "i2t": {"map": {"all": band(0.5), "100": band(0.25)}, "database": 60,
                "beyond_database": [100]},
        "t2i": {"map": {"all": band(0.75)}, "database": 60, "notes": ["[odd] codes"]},
    }  # fmt: skip
    print_cuts(directions)
    printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "│ direction │ mAP@all │ mAP@100 │" in [line.replace("┃", "│") for line in printed]
    assert "│ i2t │ 0.5000 (0.4900 to 0.5100) │ 0.2500 (0.2400 to 0.2600) │" in printed
    assert "│ t2i │ 0.7500 (0.7400 to 0.7600) │ – │" in printed
    assert printed[-2:] == ["i2t: the database has 60 rows; @100 means all", "t2i: [odd] codes"]


def test_all_rows_alone_are_in_the_table_already(capsys):
    print_cuts({"i2i": {"map": {"all": band(0.5)}}})
    print_cuts({})
    assert capsys.readouterr().out == ""


def test_evaluate_prints_the_cuts_that_it_was_asked_for(pictures, capsys):
    folder = run("method=lsh", *pictures, *QUICK)
    capsys.readouterr()
    assert main.main(["evaluate", str(folder.path), "eval.at=[all,5]"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for value in folder.metrics()["directions"]["i2i"]["map"].values():
        assert f"{value['expected']:.4f} ({value['worst']:.4f} to {value['best']:.4f})" in printed
    assert "mAP@5" in printed
    assert main.main(["evaluate", str(folder.path), "eval.at=[all]"]) == 0
    assert "by cut" not in capsys.readouterr().out
