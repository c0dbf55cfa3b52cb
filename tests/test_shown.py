"""Names that hold controls, markup and formulas, through all commands that show them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import main
from common.storage.run_folder import RunFolder
from tests.helpers import PIXELS, QUICK, picture, run

HOSTILE = {
    "controls": (
        "a\x1b[31m\x1b]0;t\x07[/nope] [link=http://evil.example]b[/]\nerror: forged\r\u2028"
        "\u202efdp.exe\u2066\x9b31m\x85\x7f$\\frac{"
    ),
    "formula": "=cmd|' /C calc'!A0",
    "tab": "\t=1+1",
    "path": "../..",
}  # fmt: skip


def write_hostile(root: Path, name: str, rows: int = 30) -> Path:
    """Write pictures in ``list.csv`` whose class, captions and files bear ``name``."""
    rng = np.random.default_rng(1)
    root.mkdir(parents=True)
    with open(root / "list.csv", "w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "label", "caption"])
        for i in range(rows):
            file = f"p{name.replace('/', '-')}{i}.png"
            Image.fromarray(picture(rng, [i % 3])).save(root / file)
            table.writerow([file, ("ant", "bee", f"{name} c")[i % 3], f"{name} caption {i % 5}"])
    return root


def controls(text: str) -> set[str]:
    """Return the signs of a text that are neither printable, nor the ends of its lines."""
    return {sign for sign in text if not sign.isprintable() and sign != "\n"}


@pytest.fixture(scope="module", params=HOSTILE)
def study(request, tmp_path_factory):
    """Name, root, run: a run on hostile data, whose settings and results bear the name as well."""
    name = HOSTILE[request.param]
    root = tmp_path_factory.mktemp(request.param)
    data = write_hostile(root / "data", name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HASHING_CACHE", str(root / "cache"))
        words = ["method=dsph", "dataset=folder", f"dataset.root={data}", "dataset.csv=list.csv"]
        folder = run(*words, *PIXELS, *QUICK, "eval.select=last", f"output={root / 'runs'}")
    for seed in (0, 1):
        metrics = folder.metrics()
        metrics["run"] |= {"dataset": name, "method": name, "backbone": name, "seed": seed}
        metrics["protocol"] |= {"split": name}
        for report in metrics["directions"].values():
            report["notes"] = [name]
        copy = root / "received" / str(seed)
        shutil.copytree(folder.path, copy)
        (copy / "metrics.json").write_text(json.dumps(metrics))
        config = yaml.safe_load((copy / "config.yaml").read_text())
        config |= {"method": name, "seed": seed}
        (copy / "config.yaml").write_text(yaml.safe_dump(config))
        RunFolder(copy).set_done()
    return name, root, folder.path


@pytest.fixture
def printed(capfd, monkeypatch, study):
    """Return a function that runs a command and returns what it printed, held to be harmless."""
    monkeypatch.setenv("HASHING_CACHE", str(study[1] / "cache"))

    def tell(*words: str | Path, codes: tuple[int, ...] = (0,)) -> str:
        try:
            code = main.main([str(word) for word in words])
        except SystemExit as end:
            code = end.code
        out, err = capfd.readouterr()
        assert code in codes, err
        assert "Traceback" not in out + err and not controls(out + err)
        assert not any(line.startswith("error: forged") for line in (out + err).split("\n"))
        return out + err

    return tell


def test_a_run_and_its_log(study, printed, tmp_path, monkeypatch):
    name, root, _ = study
    words = [
        "method=dsph", "dataset=folder", f"dataset.root={root / 'data'}", "dataset.csv=list.csv",
        *PIXELS, *QUICK, "runner.epochs=1",
    ]  # fmt: skip
    printed("train", *words, f"output={tmp_path}")
    (log,) = tmp_path.rglob("log.txt")
    assert not controls(log.read_text())
    printed("verify", *words[1:4], codes=(0, 1, 2))
    bad = root / "data" / f"p{name.replace('/', '-')}0.png"
    kept = bad.read_bytes()
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "another cache"))
    bad.write_bytes(b"no picture")
    try:
        said = printed("train", *words, f"output={tmp_path / 'bad'}", codes=(2,))
    finally:
        bad.write_bytes(kept)
    assert "data.on_bad_image=skip" in said


def test_report_of_received_runs(study, printed, tmp_path):
    name, root, _ = study
    files = {form: tmp_path / f"report.{form}" for form in ("csv", "markdown", "latex", "html")}
    words = [word for form, file in files.items() for word in (f"--{form}", str(file))]
    text = printed("report", root / "received", *words, "--plots", tmp_path / "plots")
    if name == HOSTILE["controls"]:
        assert "[/nope]" in text and "[link=http" in text
    for form, file in files.items():
        if form != "html":
            assert not controls(file.read_text()), form
    with open(files["csv"], newline="", encoding="utf-8") as stream:
        head, *rows = list(csv.reader(stream))
    for row in rows:
        assert not any(cell[:1] in ("=", "+", "@", "\t", "\r") for cell in row)
        assert float(row[head.index("mean")]) > 0
    assert all(path.parent == tmp_path / "plots" for path in tmp_path.rglob("*.png"))
    assert not list(root.glob("*.png")) and len(list((tmp_path / "plots").iterdir())) == 2


def test_search_and_encode(study, printed, tmp_path):
    name, root, path = study
    texts = tmp_path / "texts.txt"
    texts.write_text(" ".join(name.split()) + "\nanother\n")
    printed("search", path, "--text", name, "--images", root / "data", "--html", tmp_path / "page")
    printed("search", path, "--text", name, "--texts", texts)
    printed("search", path, "--image", next((root / "data").glob("*0.png")), "--top", "3")
    printed("encode", path, "--images", root / "data", "--out", tmp_path / "codes.npz")
    printed("search", path, "--text", name, "--codes", tmp_path / "codes.npz")


REFUSED = (
    "train method={0}", "train method=csq dataset={0}", "train {0}",
    "train method=csq dataset=folder loss.name={0}", "evaluate {run} {0}",
    "evaluate {run} eval.at=[{0}]", "report {tmp}/{0}/none", "metrics --query {0} --database {0}",
    "metrics --run {run} --directions {0}", "metrics --run {run} --compat {0}",
    "metrics --run {run} --plot {0}", "metrics --mat {0}", "export {0} --faiss x",
    "export {run}/codes.h5:{0} --faiss {tmp}/x", "encode {0} --out {tmp}/x.npz --texts y",
    "encode {run} --texts {0} --out {tmp}/x.npz", "encode {run} --texts x --out {0}",
    "search {0} --text x", "search {run} --text x --codes {0}", "sweep {0}.yaml",
    "sweep quickstart --launcher {0}", "sweep quickstart loss={0}", "doctor {0}.yaml",
    "prepare {0}", "verify {0}", "verify folder --root {tmp}/{0}/none", "check {0}",
    "check {0}/x.py", "list {0}", "list --plugin {0}", "{0}",
)  # fmt: skip


def test_words_that_are_refused(study, printed, tmp_path):
    name, _, path = study
    for words in REFUSED:
        filled = [w.format(name, run=path, tmp=tmp_path) for w in words.split(" ")]
        said = printed(*filled, codes=(2,))
        assert said.count("\n") == 1 and said.startswith("error: "), words
