"""The command line in bad hands: one sentence, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import main
from common.config.run_config import compose
from runners.commands import check
from runners.commands.list import KINDS
from tests.docs.test_guides import registered_as_before
from tests.helpers import QUICK, ROOT, write_class_folders, write_mat

BASE = ("method=csq", "dataset=folder", "backbone=pixels")


@pytest.fixture
def told(capfd, tmp_path):
    """Return a function that runs a command which must fail, and returns the sentence it says."""

    def run(*words: str | Path) -> str:
        try:
            code = main.main([str(word) for word in words])
        except SystemExit as end:  # argparse's own errors
            code = end.code
        out, err = capfd.readouterr()
        assert code == 2, (code, err)
        assert "Traceback" not in err and out == ""
        sentences = [line for line in err.splitlines() if "error: " in line]
        assert len(sentences) == 1, err
        for status in tmp_path.rglob("status.json"):
            assert json.loads(status.read_text())["state"] in ("failed", "done")
        left = [p.name for p in tmp_path.rglob(".*") if p.name != ".claim"]
        assert left == [], "temporary files are left"
        return sentences[0].split("error: ", 1)[1]

    return run


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("word", "start"),
    [
        ("method=dcmth", "Unknown method 'dcmth'. Did you mean 'dcmht'?"),
        ("dataset=flicker8k", "Unknown dataset 'flicker8k'. Did you mean 'flickr8k'?"),
        ("backbone=pixles", "Unknown backbone 'pixles'. Did you mean 'pixels'?"),
        ("model=imagehash", "command line: Unknown model 'imagehash'. Did you mean 'ima"),
        ("loss.name=csqq", "command line: Unknown loss 'csqq'. Did you mean 'csq'?"),
        ("loss.lamda_quant=1", "command line: key 'loss.lamda_quant' is not known. Did you mean"),
        ("runner.epoch=3", "command line: key 'runner.epoch' is not known. Did you mean 'epoc"),
        ("runner.epochs=many", "command line: runner.epochs='many' is not accepted; a whole"),
        ("epochs=3", "command line: key 'epochs' is not known."),
        ("loss=dcmht", "Loss 'dcmht' does not fit model 'image_hash': it needs image_pairs"),
        ("bits=0", "command line: bits=0 is not accepted; at least 1 is needed."),
        ("runner.epochs=0", "runner.epochs=0 is not accepted; at least 1 is needed."),
        ("runner.device=tpu9", "runner.device=tpu9 is not accepted; one of auto, cpu, cuda"),
        ("runner.precision=fp16", "runner.precision=fp16 needs a GPU; give bf16 or fp32 on a CPU."),
        ("loss=none", "Method 'csq' has no loss, and runner 'standard' trains with one;"),
        ("bits", "'bits' is not understood: settings are given as key=value, for example bits=32."),
        ("plugins=[gone.py]", "Plugin file 'gone.py' does not exist"),
    ],
)  # fmt: skip
def test_settings(word, start, told, out):
    device = [] if "device" in word else ["runner.device=cpu"]
    assert told("train", *BASE, f"output={out}", *device, word).startswith(start)
    assert not out.exists()


def test_a_config_file_with_a_typo(told, tmp_path, out):
    file = tmp_path / "mine.yaml"
    file.write_text("runner:\n  epohcs: 3\n")
    sentence = told("train", *BASE, f"output={out}", "--config", file)
    assert sentence.startswith(
        f"{file}:2: key 'runner.epohcs' is not known. Did you mean 'epochs'?"
    )
    assert told("train", *BASE, "--config", tmp_path / "no.yaml").endswith(
        "no.yaml' does not exist."
    )


@pytest.mark.parametrize("words", [[], ["trian"], ["list", "modles"], ["train", "--bits", "3"]])
def test_argparse_says_it_too(words, told):
    assert told(*words)


def test_a_gpu_that_is_not_there(told, out, pictures):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    sentence = told("train", "method=csq", *pictures, f"output={out}", "runner.device=cuda")
    assert sentence.startswith("runner.device=cuda, but PyTorch finds no CUDA GPU")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["dataset.split.query=1000"], "dataset.split.query=1000"),
        (["dataset.split.rule=per_clas"], "Unknown split rule (dataset.split.rule) 'per_clas'."),
        (["dataset.root=/nowhere/at/all"], "dataset.root: '/nowhere/at/all' is not a folder."),
        (["dataset.csv=none.csv"], "none.csv' does not exist (dataset.csv)"),
        (["method=dsph"], "Model 'dsph' needs image and text, but dataset 'folder' has no text;"),
        (["eval.directions=[i2t]"], "eval.directions has 'i2t', but model 'image_hash'"),
        (["eval.val_size=1000"], "eval.val_size=1000 leaves no training row"),
        (["eval.val_size=0"], "eval.val_size=0 gives no validation row; give more"),
        (["backbone.size=7"], "backbone.size=7"),
        (["schedule=step", "schedule.every=0"], "schedule.every=0 is not accepted; at least 1"),
        (["optim.name=adam", "optim.beta1=2"], "Optimizer 'adam' refuses: Invalid beta"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_the_data(words, part, told, out, pictures):
    sentence = told("train", "method=csq", *pictures, *QUICK, f"output={out}", *words)
    assert part in sentence
    assert not list(out.rglob("metrics.json")) and not list(out.rglob("codes.h5"))


@pytest.fixture
def mat(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "mat"
    content = write_mat(root)
    words = [
        "train", "method=csq", "dataset=mat", f"dataset.root={root}",
        "dataset.index_file=index.npy", "backbone=pixels", "backbone.size=8", "bits=8", *QUICK,
        f"output={tmp_path / 'out'}",
    ]  # fmt: skip
    return root, content, words


def test_a_mat_file_without_the_key(mat, told):
    import scipy.io

    root, content, words = mat
    scipy.io.savemat(root / "label.mat", {"categories": content["category"]})
    assert told(*words) == (
        f"'{root / 'label.mat'}' holds categories; one of category, LAll, labels, label is needed."
    )


def test_mat_files_that_differ_in_length(mat, told):
    import scipy.io

    root, content, words = mat
    scipy.io.savemat(root / "caption.mat", {"caption": content["caption"][:-1]})
    assert "index.npy has 12, caption.mat has 11, label.mat has 12 rows" in told(*words)


def test_a_mat_file_with_an_unlabelled_row(mat, told, capfd):
    import scipy.io

    root, content, words = mat
    content["category"][4] = 0
    scipy.io.savemat(root / "label.mat", {"category": content["category"]})
    assert "1 of 12 rows carry no label, row 4 first; dataset.on_unlabelled=drop" in told(*words)
    assert main.main([*words, "dataset.on_unlabelled=drop", "eval.select=last"]) == 0


def test_more_queries_than_rows(mat, told):
    assert "more rows than the 12 there are" in told(*mat[2], "dataset.split.query=13")


def test_a_truncated_picture(tmp_path, monkeypatch, told, capfd):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    root = write_class_folders(tmp_path / "pictures", per_class=6)
    broken = root / "bee" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    words = [
        "train", *BASE, f"dataset.root={root}", "backbone.size=8", "bits=8", *QUICK,
        "eval.select=last", f"output={tmp_path / 'out'}",
    ]  # fmt: skip
    sentence = told(*words)
    assert str(broken) in sentence and "data.on_bad_image=skip" in sentence
    assert main.main([*words, "data.on_bad_image=skip"]) == 0
    shown = capfd.readouterr()
    folder = Path(shown.out.splitlines()[-1])
    told_count = "1 of 18 pictures cannot be read, and their rows are left out"
    assert told_count in shown.err + shown.out
    assert told_count in (folder / "log.txt").read_text()
    protocol = json.loads((folder / "metrics.json").read_text())["protocol"]
    assert protocol["skipped_images"] == 1
    assert sum(protocol["rows"][part] for part in ("query", "database")) == 17


def weights_words(file: Path, pictures: list[str], out: Path) -> list[str]:
    network = ["backbone=resnet34", f"backbone.weights={file}"]
    words = [word for word in pictures if not word.startswith("backbone")]
    return ["train", "method=csq", *words, *network, *QUICK, f"output={out}"]


def test_weights_that_are_not_there(told, tmp_path, pictures, out):
    sentence = told(*weights_words(tmp_path / "none.safetensors", pictures, out))
    place = tmp_path / "none.safetensors"
    for part in (
        "needs resnet34-b627a593.pth (https://download.pytorch.org/",
        f"'{place}' does not exist: put it at '{place}'", "backbone=NAME", "backbone=pixels",
    ):  # fmt: skip
        assert part in sentence
    assert "backbone.weights=PATH" in sentence


def test_a_pickle_is_never_executed(told, tmp_path, pictures, out):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    for file in (tmp_path / "evil.pt", tmp_path / "evil.pth"):
        sentence = told(*weights_words(file, pictures, out))
        assert "files are never unpickled: convert it to .safetensors" in sentence
    assert not (tmp_path / "executed").exists()


def test_an_output_that_cannot_be_written(told, tmp_path, pictures):
    (tmp_path / "file").write_text("mine")
    output = f"output={tmp_path / 'file' / 'sub'}"
    sentence = told("train", "method=csq", *pictures, *QUICK, output)
    assert (
        sentence.startswith("Cannot create the run folder '")
        and "choose another folder" in sentence
    )
    assert (tmp_path / "file").read_text() == "mine"


def test_a_cache_that_cannot_be_written(told, tmp_path, pictures, out, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "file" / "cache"))
    sentence = told("train", "method=csq", *pictures, *QUICK, f"output={out}")
    assert sentence.startswith(f"Cannot write '{tmp_path / 'file'}")


@pytest.fixture
def finished(pictures, out, capfd) -> Path:
    """Return the folder of a finished run."""
    words = ["train", "method=csq", *pictures, *QUICK, "eval.select=last", f"output={out}"]
    assert main.main(words) == 0
    return Path(capfd.readouterr().out.splitlines()[-1])


def test_a_checkpoint_of_another_configuration(told, pictures, out, finished):
    words = ["method=csq", *pictures, *QUICK, "eval.select=last", f"output={out}", "optim.lr=0.5"]
    other = out / compose(words).run_name
    shutil.copytree(finished / "checkpoints", other / "checkpoints")
    sentence = told("train", *words)
    assert "belongs to another configuration" in sentence and "choose another output" in sentence


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (
            ["bits=8"],
            "evaluate takes eval.at, eval.measure, eval.directions and eval.no_relevant only, "
            "not 'bits=8'",
        ),
        (["eval.at=[0]"], "eval.at=[0] is not accepted"),
        (["eval.directions=[t2t]"], "holds codes of image only, so 't2t' cannot be measured"),
    ],
)
def test_evaluate_with_settings_that_do_not_fit(words, part, told, finished):
    before = (finished / "metrics.json").read_bytes()
    assert part in told("evaluate", finished, *words)
    assert (finished / "metrics.json").read_bytes() == before


def test_evaluate_what_is_no_run(told, tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        assert told("evaluate", path) == (
            f"'{path}' is not a run folder (no config.yaml in it); give the path that "
            "train printed."
        )


def test_evaluate_a_run_whose_codes_are_broken(told, finished):
    (finished / "codes.h5").write_bytes(b"")
    assert "codes.h5 has 0 bytes, not" in told("evaluate", finished)


def test_report_without_runs(told, tmp_path):
    assert told("report", tmp_path / "no").startswith(f"'{tmp_path / 'no'}' is not a folder")
    assert told("report", tmp_path).startswith(f"'{tmp_path}' holds no finished run")


def test_report_on_metrics_that_are_broken(told, finished, out):
    (finished / "metrics.json").write_text("{")
    assert "holds no finished run (1 damaged)" in told("report", out)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("gird: {bits: [8]}", "key 'gird' is not known. Did you mean 'grid'?"),
        ("grid: {bitz: [8]}", "key 'bitz' is not known. Did you mean 'bits'?"),
        ("grid: {bits: 8}", "grid.bits=8 is not accepted; a list of values is needed."),
        ("grid: {}", "grid is empty; give lists of values"),
        ("grid: {bits: [x]}", "bits='x' is not accepted; a whole number is needed."),
        ("grid: {method: [cqs]}", "Unknown method 'cqs'. Did you mean 'csq'?"),
        ("grid: {bits: [8]}\noverrides: [{were: {}, set: {}}]", "overrides[0].were' is not known."),
        ("grid: [", "not valid YAML"),
        ("output: x", "key 'grid' is missing"),
    ],
)
def test_sweep_files_with_a_slip(text, part, told, tmp_path, pictures, out):
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    words = BASE[1:] if "method" in text else BASE
    sentence = told("sweep", file, "--output", out, *words)
    assert part in sentence, sentence
    assert not out.exists()


def test_sweeps_that_are_not_there(told):
    assert told("sweep", "flickr8").startswith("Unknown sweep 'flickr8'. Did you mean 'flickr8k'?")
    assert told("sweep", "none.yaml") == "Config file 'none.yaml' does not exist."


def test_check_of_an_unknown_method(told):
    assert told("check", "cqs").startswith("Unknown method 'cqs'. Did you mean 'csq'?")


PLUGIN = {
    "model": """
@MODELS.register("cli_test_model", provides=("image_code", "cli_scores"))
class OwnModel(HashModel):
    "A hash layer and a classifier."
    modalities = ("image",)
    def __init__(self, config, problem, backbone):
        super().__init__(config, problem, backbone)
        self.hash = nn.Linear(backbone.widths["image"], problem.bits)
        self.classify = nn.Linear(problem.bits, problem.n_classes)
    def forward(self, batch):
        code = self.encode(batch, "image")
        return Outputs(image_code=code, cli_scores=self.classify(code.tanh()))
    def encode(self, batch, modality):
        return self.hash(self.backbone(batch, modality).pooled)
""",
    "loss": """
@LOSSES.register("cli_test_loss", needs=("image_code", "cli_scores"))
class OwnLoss(HashLoss):
    "Cross-entropy."
    def forward(self, outputs, batch, progress):
        share = batch.label / batch.label.sum(1, keepdim=True).clamp(min=1)
        return Terms(classes=nn.functional.cross_entropy(outputs.cli_scores, share))
""",
    "any": """
@LOSSES.register("cli_test_any", needs=("*_code",))
class AnyLoss(HashLoss):
    "Codes to +-1."
    def forward(self, outputs, batch, progress):
        return Terms(**{m: (code.abs() - 1).pow(2).mean() for m, code in outputs.codes().items()})
""",
}
IMPORTS = """from torch import nn
from common.registry import LOSSES, MODELS
from models.base import HashLoss, HashModel, Outputs, Terms
"""


@pytest.mark.parametrize(
    ("parts", "tried"),
    [
        (["model"], ["method=csq model.name=cli_test_model"]),
        (["model", "loss"], ["method=csq model.name=cli_test_model loss.name=cli_test_loss"]),
        (["any"], ["method=csq loss.name=cli_test_any", "method=dsph loss.name=cli_test_any"]),
        (
            ["model", "any"],
            [
                "method=csq model.name=cli_test_model loss.name=cli_test_any",
                "method=dsph loss.name=cli_test_any",
            ],
        ),
    ],
)
def test_check_of_a_plugin_tries_all_that_is_in_it(parts, tried, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(check, "CASES", check.CASES[:1])
    file = tmp_path / "mine.py"
    file.write_text(IMPORTS + "".join(PLUGIN[part] for part in parts))
    with registered_as_before():
        assert main.main(["check", str(file)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[::2] == [f"{words} plugins=[{file}]" for words in tried]
    assert all(line.endswith("sound") for line in lines[1::2])


def test_a_loss_whose_model_is_not_there(told, tmp_path):
    (tmp_path / "mine.py").write_text(IMPORTS + PLUGIN["loss"])
    with registered_as_before():
        assert "it needs cli_scores" in told("check", tmp_path / "mine.py")


@pytest.mark.parametrize("yaml", ["", "backbone: {name: pixels, size: 8}"])
def test_results_call_an_own_encoder_by_its_short_name(yaml, pictures, tmp_path, out, capfd):
    words = [word for word in pictures if not word.startswith("backbone")]
    chosen = ["backbone.name=pixels", "backbone.size=8"]
    if yaml:
        (tmp_path / "small.yaml").write_text(yaml)
        chosen = [f"backbone={tmp_path / 'small.yaml'}"]
    assert main.main(["train", "method=lsh", *words, *chosen, f"output={out}"]) == 0
    folder = Path(capfd.readouterr().out.splitlines()[-1])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["run"]["backbone"] == ("small" if yaml else "pixels")


def npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)
    return path


GOOD = {"codes": np.array([[1, -1], [-1, 1]]), "labels": np.array([0, 1])}


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ({"labels": [0, 1]}, "codes"),
        ({"codes": GOOD["codes"]}, "no 'labels'"),
        ({"codes": [[1.0, np.nan], [1, 1]], "labels": [0, 1]}, "NaN"),
        ({"codes": [1, -1], "labels": [0, 1]}, "codes"),
        ({"codes": GOOD["codes"], "labels": [0, 1, 2]}, "3"),
        ({"codes": np.ones((2, 3)), "labels": [0, 1]}, "bits"),
        ({"packed": np.ones((2, 1), np.uint8), "labels": [0, 1]}, "bits"),
        ({"codes": np.array([[{}], [{}]], dtype=object), "labels": [0, 1]}, "codes"),
    ],
)  # fmt: skip
def test_malformed_npz(arrays, part, told, tmp_path):
    good, bad = npz(tmp_path / "good.npz", **GOOD), npz(tmp_path / "bad.npz", **arrays)
    result = tmp_path / "result.json"
    sentence = told("metrics", "--query", bad, "--database", good, "--json", result)
    assert part in sentence and not result.exists()


def test_metrics_of_files_that_are_none(told, tmp_path):
    good = npz(tmp_path / "good.npz", **GOOD)
    (tmp_path / "text.npz").write_text("no zip")
    (tmp_path / "torn.npz").write_bytes(good.read_bytes()[:80])
    for name in ("text.npz", "torn.npz", "gone.npz"):
        assert name in told("metrics", "--query", good, "--database", tmp_path / name)
    assert "at" in told("metrics", "--query", good, "--database", good, "--at", "all,x")


def test_metrics_as_json(tmp_path, capfd):
    good = npz(tmp_path / "good.npz", **GOOD)
    assert main.main(["metrics", "--query", str(good), "--database", str(good), "--json", "-"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["directions"]["q2d"]["map"]["all"]["expected"] == 1.0


@pytest.fixture
def codes(tmp_path):
    """Return a folder with codes in every format: 3 queries and 4 rows of 8 bits."""
    import h5py
    import scipy.io

    rng = np.random.default_rng(0)
    q, d = rng.choice([-1, 1], (3, 8)), rng.choice([-1, 1], (4, 8))
    query, database = {"codes": q, "labels": [0, 1, 0]}, {"codes": d, "labels": [0, 1, 1, 0]}
    npz(tmp_path / "q.npz", **query), npz(tmp_path / "d.npz", **database)
    for name, side in (("q", query), ("d", database)):
        np.save(tmp_path / f"{name}.npy", side["codes"])
        np.save(tmp_path / f"{name}_labels.npy", side["labels"])
    with h5py.File(tmp_path / "both.h5", "w") as file:
        for name, side in (("q", query), ("d", database)):
            for key, value in side.items():
                file[f"{name}/{key}"] = value
    both = {"q_img": q, "q_txt": q, "r_img": d, "r_txt": d, "q_l": [0, 1, 0], "r_l": [0, 1, 1, 0]}
    scipy.io.savemat(tmp_path / "best.mat", both)
    return tmp_path


def measured(capfd, *words: str | Path) -> dict:
    assert main.main(["metrics", *(str(word) for word in words), "--json", "-"]) == 0
    return json.loads(capfd.readouterr().out)["directions"]


def test_metrics_of_every_format_agree(codes, capfd):
    npz_files = ["--query", codes / "q.npz", "--database", codes / "d.npz"]
    reports = {
        "npz": npz_files,
        "npy": [
            "--query", codes / "q.npy", "--query-labels", codes / "q_labels.npy",
            "--database", codes / "d.npy", "--database-labels", codes / "d_labels.npy",
        ],
        "h5": ["--query", f"{codes / 'both.h5'}:q", "--database", f"{codes / 'both.h5'}:d/codes"],
        "strict": [*npz_files, "--strict"],
        "little": [*npz_files, "--memory-mb", "1e-5"],
        "cpu": [*npz_files, "--device", "cpu"],
    }  # fmt: skip
    whole = measured(capfd, *reports["npz"])
    assert list(whole) == ["q2d"]
    for words in reports.values():
        assert measured(capfd, *words) == whole
    assert measured(capfd, "--mat", codes / "best.mat") == {
        "i2t": whole["q2d"],
        "t2i": whole["q2d"],
    }
    alone = measured(capfd, "--mat", codes / "best.mat", "--directions", "t2t")
    assert alone == {"t2t": whole["q2d"]}


def test_metrics_beyond_the_database_are_stated(codes, capfd):
    words = ["--query", codes / "q.npz", "--database", codes / "d.npz"]
    report = measured(capfd, *words, "--at", "all,4,5000", "--precision-at", "1,4,9")["q2d"]
    assert report["map"]["5000"] == report["map"]["4"]
    assert report["map"]["5000"]["expected"] == report["map"]["all"]["expected"]
    assert report["precision_at"]["9"] == report["precision_at"]["4"]
    assert report["beyond_database"] == [9, 5000]
    assert main.main(["metrics", *map(str, words), "--at", "5000"]) == 0
    assert "note: the database has 4 rows; @5000 means all" in capfd.readouterr().out


def test_metrics_as_a_picture(codes, capfd):
    words = ["metrics", "--mat", str(codes / "best.mat"), "--plot", str(codes / "new" / "pr.png")]
    assert main.main(words) == 0
    assert "i2t: 3 queries, 4 rows" in capfd.readouterr().out
    assert (codes / "new" / "pr.png").read_bytes().startswith(b"\x89PNG")


def test_metrics_of_a_run(finished, capfd):
    stored = json.loads((finished / "metrics.json").read_text())
    found = measured(capfd, "--run", finished)["i2i"]
    assert found["map"]["all"] == stored["directions"]["i2i"]["map"]["all"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("", "metrics takes two files, --query and --database"),
        ("--query q.npz", "metrics takes two files"),
        ("--database d.npz", "metrics takes two files"),
        ("--query q.npz --database d.npz --mat best.mat", "metrics takes two files"),
        ("--query q.npz --database d.npz --directions i2t", "which alone has --directions"),
        ("--mat best.mat --run .", "metrics takes two files"),
        ("--mat best.mat --query-labels q_labels.npy", "metrics takes two files"),
        ("--mat best.mat --directions i2x", "Unknown direction 'i2x'"),
        ("--mat best.mat --directions ,", "Unknown direction ''"),
        ("--mat q.npz", "q.npz' is not a MATLAB .mat file"),
        ("--run .", "is not a run folder with a codes.h5 in it"),
        ("--run q.npz", "q.npz' holds no codes of a run"),
        ("--query best.mat --database d.npz", "best.mat' is a MATLAB file; give"),
        ("--query q.npy --database d.npz", "q.npy': Found a single array, so no 'labels'"),
        ("--query q.npy --query-labels d_labels.npy --database d.npz", "3 rows of codes and 4 of"),
        ("--query q.npy --query-labels gone.npy --database d.npz", "gone.npy' does not exist"),
        ("--query q.npy --query-labels d.npz --database d.npz", "d.npz' is an npz; labels are"),
        ("--query both.h5 --database d.npz", "both.h5:d/codes', "),
        ("--query both.h5:x --database d.npz", "both.h5' has no 'x'; choose one of"),
        ("--query q.npz --database d.npz --precision-at 0", "--precision-at is '0'; ranks above"),
        ("--query q.npz --database d.npz --precision-at 1,x", "--precision-at is '1,x'"),
        ("--query q.npz --database d.npz --plot pr.pdf", "pr.pdf' is no name for the plot"),
        ("--query q.npz --database d.npz --plot .", "is no name for the plot"),
        ("--query q.npz --database d.npz --device tpu9", "'tpu9' cannot be used here"),
        ("--query q.npz --database d.npz --memory-mb 0", "memory_mb is 0.0"),
        ("--query q.npz --database d.npz --memory-mb nan", "memory_mb is nan"),
        ("--query q.npz --database d.npz --memory-mb much", "invalid float value"),
        ("--query q.npz --database d.npz --no-relevant maybe", "invalid choice"),
    ],
)
def test_metrics_in_bad_hands(words, part, told, codes, monkeypatch):
    monkeypatch.chdir(codes)
    before = sorted(codes.rglob("*"))
    assert part in told("metrics", *words.split())
    assert sorted(codes.rglob("*")) == before


def test_strict_metrics(told, codes, capfd):
    real = npz(codes / "real.npz", codes=np.full((2, 8), 0.5), labels=[0, 1])
    words = ["metrics", "--query", real, "--database", codes / "d.npz"]
    assert main.main([str(word) for word in words]) == 0
    assert "real values, of which the sign was taken" in capfd.readouterr().out
    assert "only ±1, 0 and 1 are accepted" in told(*words, "--strict")


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_export(codes, capfd, kind):
    from common.code_files.faiss_index import load_index, search

    file = codes / "new" / "codes.faiss"
    for given in ("d.npz", "d.npy", "both.h5:d"):
        words = ["export", f"{codes / given}", "--faiss", str(file), "--kind", kind]
        assert main.main(words) == 0
        assert capfd.readouterr().out == f"4 codes of 8 bits, {kind} index: {file}\n"
        distances, _ = search(load_index(file), np.load(codes / "d.npz")["codes"], 1)
        assert distances.tolist() == [[0]] * 4


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("gone.npz --faiss x", "gone.npz' does not exist"),
        ("both.h5 --faiss x", "choose one of 'both.h5:d/codes'"),
        ("d_labels.npy --faiss x", "Codes have shape [4]"),
        ("d.npz --faiss d.npz/x", "Cannot write 'd.npz/x'"),
        ("d.npz --faiss x --kind tree", "invalid choice"),
        ("d.npz", "--faiss"),
    ],
)
def test_export_in_bad_hands(words, part, told, codes, monkeypatch):
    monkeypatch.chdir(codes)
    assert part in told("export", *words.split())
    assert not (codes / "x").exists()


def test_list_as_json(capfd):
    assert main.main(["list", "--json"]) == 0
    tables = json.loads(capfd.readouterr().out)
    assert set(tables) == set(KINDS)
    assert "csq" in [entry["name"] for entry in tables["methods"]]
    assert all(entry["summary"] for entries in tables.values() for entry in entries)


def test_settings_may_stand_behind_an_option(tmp_path, capfd):
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 4\nbits: 8")
    words = ["train", BASE[0], "--config", str(file), *BASE[1:], "--print-config", "bits=24"]
    assert main.main(words) == 0
    shown = capfd.readouterr().out
    assert "bits: 24" in shown and "seed: 4" in shown


def test_list_with_a_plugin_that_fails(told, tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0")
    assert "ZeroDivisionError" in told("list", "losses", "--plugin", tmp_path / "broken.py")


def test_print_config_repeats_the_run(capfd, tmp_path, out):
    words = [*BASE, f"output={out}", "bits=24"]
    assert main.main(["train", *words, "--print-config"]) == 0
    file = tmp_path / "config.yaml"
    file.write_text(capfd.readouterr().out)
    assert compose([], file) == compose(words)
    assert not out.exists()


def test_the_exit_code_of_the_process():
    done = subprocess.run(
        [sys.executable, "main.py", "train", "method=cqs"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: Unknown method 'cqs'.") and done.stderr.count("\n") == 1


def test_a_reader_that_goes_away():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "main.py", "list"],
        cwd=ROOT,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    assert "Traceback" not in done.stderr
