"""Bad inputs by the dozen: each ends with one line that says what is wrong, and exit code 2.

A case is one line of ``CASES``: the words of a command, and words that its sentence must hold. In
the words, ``{name}`` stands for a place of ``places`` (a run, pictures, an output) or for a file of
``FILES``, which is written where a case names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import main
from tests.helpers import PIXELS, QUICK, run, write_captioned, write_class_folders

TRAIN = f"train method=csq dataset=folder dataset.root={{pictures}} {' '.join((*PIXELS, *QUICK))} "
TRAIN += "output={out} "
PAIRS = TRAIN.replace("{pictures}", "{captioned} dataset.csv=list.csv").replace("csq", "dsph")
DIGITS, LONG, DEEP = "7" * 5000, "n" * 300, "[" * 3000 + "]" * 3000
METRICS = "metrics --query {codes.npz} --database {codes.npz} "


def _npz(**arrays: object) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)  # type: ignore[arg-type]


def _npy_header(shape: str) -> bytes:
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + b"\0" * 64


def _h5(**parts: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for name, value in parts.items():
                file[name] = value

    return write


CODES, LABELS = np.tile([[0, 1]], (6, 4)), np.eye(3)[[0, 1, 2, 0, 1, 2]]

FILES: dict[str, str | bytes | Callable[[Path], None]] = {
    "codes.npz": _npz(codes=CODES, labels=LABELS),
    "unlabelled.npz": _npz(codes=CODES),
    "wide.npz": _npz(codes=CODES, labels=np.eye(4)[[0, 1, 2, 0, 1, 2]]),
    "objects.npz": _npz(codes=np.array([{}, []], dtype=object), labels=LABELS),
    "nan.npz": _npz(codes=np.full((6, 8), np.nan), labels=LABELS),
    "flat.npz": _npz(codes=np.arange(6), labels=LABELS),
    "none.npz": _npz(codes=np.zeros((0, 8)), labels=np.zeros((0, 3))),
    "words.npz": _npz(codes=np.array([["a", "b"]] * 6), labels=LABELS),
    "cut.npz": b"PK\x03\x04 and no more",
    "empty.npz": b"",
    "negative.npy": _npy_header("(-1, 8)"),
    "huge.npy": _npy_header("(1000000000000, 8)"),
    "no-numpy.npy": b"\x93NUMPY\xff",
    "empty.h5": b"",
    "bare.h5": _h5(values=CODES),
    "cut.mat": b"MATLAB 5.0 MAT-file" + b" " * 200,
    "deep.yaml": f"bits: {DEEP}\n",
    "deep.json": DEEP,
    "digits.yaml": f"seed: {DIGITS}\n",
    "nul.yaml": 'data: {generated: "a\\0b"}\n',
    "list.yaml": "- bits\n- 16\n",
    "empty.yaml": "",
    "binary.yaml": bytes(range(128, 256)),
    "tab.yaml": "runner:\n\tepochs: 3\n",
    "twice.yaml": "bits: 16\nbits: 32\n",
    "interpolated.yaml": "bits: ${nothing}\n",
    "object.yaml": "bits: !!python/object/apply:os.system [true]\n",
    "slash.yaml": "method: ../../elsewhere\n",
    "escape.yaml": 'loss: {name: "\\e[31mred\\nline"}\n',
    "nan-lease.yaml": "grid: {bits: [8]}\nlease_s: .nan\n",
    "inf-lease.yaml": "grid: {bits: [8]}\nlease_s: .inf\n",
    "long-lease.yaml": "grid: {bits: [8]}\nlease_s: 1.0e300\n",
    "hang.yaml": "grid: {bits: [8]}\nhang_after_s: -1\n",
    "retries.yaml": "grid: {bits: [8]}\nretries: -1\n",
    "workers.yaml": "grid: {bits: [8]}\nworkers: -3\n",
    "no-list.yaml": "grid: {bits: 8}\n",
    "texts.txt": "a bee\n",
    "latin.txt": "caf\xe9\n".encode("latin-1"),
    "blank.txt": "\n \n",
    "latin.csv": "path,label\ncaf\xe9.png,bee\n".encode("latin-1"),
    "published.csv": "paper,number\nx,1\n",
    "plugin.py": "1 / 0\n",
    "syntax.py": "def\n",
    "nothing.py": "x = 1\n",
    "picture.png": b"no picture",
}  # fmt: skip

CASES = [
    # settings: numbers
    (TRAIN + "bits=0", "bits=0 is not accepted; at least 1"),
    (TRAIN + "bits=-8", "bits=-8 is not accepted"),
    (TRAIN + "bits=1000000000", "bits=1000000000 is not accepted; at most 65,536"),
    (TRAIN + "bits=1e300", "bits=1e+300 is not accepted"),
    (TRAIN + "bits=.nan", "bits=nan is not accepted"),
    (TRAIN + "bits=.inf", "bits=inf is not accepted; a whole number"),
    (TRAIN + "bits=16.5", "bits=16.5 is not accepted; a whole number"),
    (TRAIN + "bits=[16]", "bits=[16] is not accepted; a whole number"),
    (TRAIN + "bits=null", "bits"),
    (TRAIN + f"bits={DIGITS}", "bits"),
    (TRAIN + f"seed={DIGITS}", "seed"),
    (TRAIN + "seed=0x" + "f" * 5000, "holds a number of 5002 characters"),
    (TRAIN + "seed=-1", "seed=-1 is not accepted; 0 to 4294967295"),
    (TRAIN + "seed=1e12", "seed=1000000000000 is not accepted"),
    (TRAIN + "optim.lr=.nan", "optim.lr=nan is not accepted"),
    (TRAIN + "optim.lr=-1", "optim.lr=-1.0 is not accepted; 0 or more"),
    (TRAIN + "optim.lr=.inf", "optim.lr=inf is not accepted"),
    (TRAIN + "runner.epochs=1e30", "runner.epochs"),
    (TRAIN + "runner.epochs=-3", "runner.epochs=-3 is not accepted"),
    (TRAIN + "runner.batch_size=0", "runner.batch_size=0 is not accepted"),
    (TRAIN + "runner.batch_size=-1", "runner.batch_size=-1 is not accepted"),
    (TRAIN + "dataset.split.query=1e12", "dataset.split.query=1000000000000"),
    (TRAIN + "dataset.split.train=1e12", "dataset.split.train=1000000000000"),
    (TRAIN + "dataset.split.query=-1", "dataset.split.query=-1"),
    (TRAIN + "dataset.split.query=.nan", "dataset.split.query=nan is not accepted"),
    (TRAIN + "dataset.split.seed=-1", "dataset.split.seed=-1"),
    (TRAIN + "eval.val_size=1e12", "eval.val_size=1000000000000.0 is not accepted"),
    (TRAIN + "eval.val_size=-1", "eval.val_size=-1"),
    (TRAIN + "eval.at=[1e300]", "eval.at"),
    (TRAIN + "eval.at=[-5]", "eval.at=[-5] is not accepted"),
    (TRAIN + "eval.every=0", "eval.every=0 is not accepted"),
    (TRAIN + "data.workers=-1", "data.workers=-1"),
    (TRAIN + "data.eval_batch_size=0", "data.eval_batch_size=0"),
    (TRAIN + "data.caption_noise=2", "data.caption_noise=2.0 is not accepted"),
    (TRAIN + "backbone.size=-8", "backbone.size=-8"),
    (TRAIN + "backbone.size=1e12", "backbone.size=1000000000000, "),
    (TRAIN + "backbone.text_width=-1", "text_width=-1"),
    (TRAIN + "runner.threads=-1", "runner.threads=-1"),
    # settings: words
    (TRAIN + "=3", "settings are given as key=value"),
    (TRAIN + "bits={16", "the value of 'bits' is no valid YAML"),
    (TRAIN + "bits=" + "[" * 500, "nests its values deeper than 50"),
    (TRAIN + "bits.low=3", "bits={'low': 3} is not accepted; a whole number"),
    (TRAIN + "loss={newline}x", "'loss=\\nx' holds a control character"),
    (TRAIN + "loss.name={escape}[31mred", "'loss.name=\\x1b[31mred' holds"),
    (TRAIN + "loss.name=[/nope]", "loss"),
    (TRAIN + "loss.name={bidi}x", "Unknown loss '\\u202ex'"),
    (TRAIN + "model=3", "model"),
    (TRAIN + "runner={loop}", "runner"),
    (TRAIN + "eval.measure=[map@]", "eval.measure"),
    (TRAIN + "data.train_image=[melt]", "melt"),
    (TRAIN + "data.train_image=[squash{newline}8]", "holds a control character"),
    (TRAIN + "bits=${oc.env:HOME}", "bits"),
    (TRAIN + "--bits 3", "unrecognized arguments: --bits"),
    (TRAIN + "--conf{escape}ig", "unrecognized arguments: --conf\\x1big"),
    # settings: files
    (TRAIN + "--config {deep.yaml}", "nests its values deeper than 50"),
    (TRAIN + "--config {digits.yaml}", "holds a number of 5000 characters"),
    (TRAIN + "--config {nul.yaml}", "a text without the NUL sign is needed"),
    (TRAIN + "--config {list.yaml}", "settings are needed as 'key: value' lines"),
    (TRAIN + "--config {binary.yaml}", "cannot be read as YAML"),
    (TRAIN + "--config {tab.yaml}", "tab.yaml:2: not valid YAML"),
    (TRAIN + "--config {twice.yaml}", "twice.yaml"),
    (TRAIN + "--config {interpolated.yaml}", "interpolated.yaml"),
    (TRAIN + "--config {object.yaml}", "object.yaml:1: not valid YAML"),
    (TRAIN.replace("method=csq", "") + "--config {slash.yaml}", "Unknown method '../../elsewhere'"),
    (TRAIN + "--config {escape.yaml}", "Unknown loss '\\x1b[31mred\\nline'"),
    (TRAIN + "--config {pictures}", "does not exist"),
    (TRAIN + f"--config {LONG}.yaml", "too long"),
    # folders
    (TRAIN + "output=/proc/none", "Cannot create the run folder '/proc/none/"),
    (TRAIN + f"output={{out}}/{LONG}", "the name is too long"),
    (TRAIN + "output={picture.png}", "a part of the path is a file"),
    (TRAIN + "output={loop}/x", "links lead in a circle"),
    (TRAIN + "dataset.root={out}/none", "is not a folder"),
    (TRAIN + "dataset.root={out}{newline}x", "\\nx' holds a control character"),
    (TRAIN + "dataset.root={out}/{surrogate}", "A name is not UTF-8"),
    (TRAIN + "dataset.root={empty}", "{empty}"),
    (TRAIN + "dataset.csv={latin.csv}", "is not UTF-8 text"),
    (PAIRS + "dataset.caption_column=none", "none"),
    (TRAIN + "plugins=[{plugin.py}]", "failed while being imported: ZeroDivisionError"),
    (TRAIN + "plugins=[{syntax.py}]", "failed while being imported: SyntaxError"),
    ("check {nothing.py}", "registers neither a model nor a loss"),
    # sweeps
    ("sweep {nan-lease.yaml} --output {out}", "lease_s=nan is not accepted"),
    ("sweep {inf-lease.yaml} --output {out} --dry-run", "lease_s=inf is not accepted"),
    ("sweep {long-lease.yaml} --output {out} --dry-run", "lease_s=1e+300 is not accepted"),
    ("sweep {hang.yaml} --output {out} --dry-run", "hang_after_s=-1"),
    ("sweep {retries.yaml} --output {out} --dry-run", "retries=-1"),
    ("sweep {workers.yaml} --output {out} --dry-run", "workers=-3"),
    ("sweep {no-list.yaml} --output {out}", "grid.bits=8 is not accepted; a list"),
    ("sweep {deep.yaml}", "nests its values deeper than 50"),
    ("sweep {empty.yaml}", "key 'grid' is missing"),
    ("sweep quickstart --workers many", "'many' is neither auto nor a number of workers"),
    (f"sweep quickstart --workers {DIGITS}", "is neither auto nor a number of workers"),
    ("sweep quickstart --workers 0 --output {out}", "workers=0 is not accepted"),
    ("doctor {deep.yaml}", "nests its values deeper than 50"),
    # codes from anywhere
    ("metrics --query {cut.npz} --database {codes.npz}", "cut.npz'"),
    ("metrics --query {empty.npz} --database {codes.npz}", "empty.npz'"),
    ("metrics --query {objects.npz} --database {codes.npz}", "objects.npz'"),
    ("metrics --query {nan.npz} --database {codes.npz}", "nan.npz'"),
    ("metrics --query {flat.npz} --database {codes.npz}", "flat.npz'"),
    ("metrics --query {none.npz} --database {codes.npz}", "none.npz'"),
    ("metrics --query {words.npz} --database {codes.npz}", "words.npz'"),
    ("metrics --query {wide.npz} --database {codes.npz}", "classes"),
    ("metrics --query {unlabelled.npz} --database {codes.npz}", "labels"),
    ("metrics --query {negative.npy} --database {codes.npz}", "negative.npy'"),
    ("metrics --query {huge.npy} --database {codes.npz}", "huge.npy'"),
    ("metrics --query {no-numpy.npy} --database {codes.npz}", "no-numpy.npy'"),
    ("metrics --query {empty.h5} --database {codes.npz}", "empty.h5'"),
    ("metrics --query {bare.h5} --database {codes.npz}", "bare.h5'"),
    ("metrics --query {codes.npz}:part --database {codes.npz}", "part"),
    ("metrics --query {out}/{surrogate}.npz --database {codes.npz}", "\\xff.npz'"),
    ("metrics --query /{newline}.npz --database {codes.npz}", "'/\\n.npz'"),
    ("metrics --query {codes.npz} --database {pictures}", "{pictures}"),
    ("metrics --mat {cut.mat}", "cut.mat'"),
    (METRICS + "--query-labels {negative.npy}", "negative.npy'"),
    (METRICS + "--query-labels {huge.npy}", "huge.npy'"),
    (METRICS + "--at 0", "0"),
    (METRICS + "--at 1e12", "1e12"),
    (METRICS + f"--at {DIGITS}", "thousands of digits"),
    (METRICS + "--precision-at -1", "-1"),
    (METRICS + "--memory-mb nan", "memory_mb is nan"),
    (METRICS + "--memory-mb -1", "memory_mb is -1"),
    (METRICS + "--compat nobody", "nobody"),
    (METRICS + "--device moon", "moon"),
    (METRICS + "--json /proc/none/m.json", "'/proc/none"),
    (METRICS + f"--json {{out}}/{LONG}.json", "the name is too long"),
    (METRICS + "--plot {out}/plot.gif", ".png is needed"),
    (METRICS + "--plot /proc/none/p.png", "'/proc/none"),
    ("metrics --run {pictures}", "{pictures}"),
    (METRICS + "--no-relevant{newline}x", "unrecognized arguments: --no-relevant\\nx"),
    # runs
    ("evaluate {pictures}", "is not a run folder"),
    (f"evaluate {LONG}", "too long"),
    ("evaluate {run} eval.at=[x]", "eval.at"),
    ("evaluate {run} eval.at=[1e300]", "eval.at"),
    ("export {run}/codes.h5:query/image --faiss /proc/none/x", "'/proc/none"),
    ("export {run}/codes.h5:nobody/image --faiss {out}", "nobody"),
    ("export {cut.npz} --faiss {out}", "cut.npz'"),
    ("report {run} --csv /proc/none/x.csv", "'/proc/none"),
    (f"report {{run}} --markdown {{out}}/{LONG}.md", "the name is too long"),
    ("report {run} --published {published.csv}", "published.csv'"),
    ("report {run} --published {latin.csv}", "latin.csv'"),
    ("report {run} --queries x", "invalid int value: 'x'"),
    ("report {out}/none", "is not a folder"),
    # search
    ("encode {run} --out {out}/x.npz", "one of --images DIR, --texts FILE and --features FILE"),
    ("encode {run} --images {pictures} --out {out}/x.txt", "ends in neither .h5 nor .npz"),
    ("encode {run} --images {empty} --out {out}/x.npz", "no picture in"),
    ("encode {run} --images {pictures} --out /proc/none/x.npz", "'/proc/none"),
    ("encode {run} --texts {texts.txt} --out {out}/x.npz", "text"),
    ("encode {run} --texts {latin.txt} --out {out}/x.npz", "cannot be read as UTF-8 text"),
    ("encode {run} --texts {blank.txt} --out {out}/x.npz", "holds no text"),
    ("encode {run} --images {pictures} --out {out}/x.npz --device moon", "moon"),
    ("search {run} --image {picture.png}", "picture.png'"),
    ("search {run} --image {out}/{surrogate}.png", "\\xff.png' does not exist"),
    ("search {run} --query x --text y", "one of --query, --text and --image"),
    ("search {run} --text {escape}[31m", "image"),
    ("search {run} --image {pictures}/ant/0.png --top 0", "--top is 0"),
    (f"search {{run}} --image {{pictures}}/ant/0.png --top {DIGITS}", "--top"),
    ("search {run} --image {pictures}/ant/0.png --codes {cut.npz}", "cut.npz'"),
    ("search {run} --image {pictures}/ant/0.png --codes {unlabelled.npz}", "unlabelled.npz'"),
    ("search {run} --image {pictures}/ant/0.png --html /proc/none/x", "'/proc/none"),
    # datasets
    ("prepare folder", "has no official files to prepare"),
    ("prepare coco --root /proc/none", "'/proc/none"),
    ("verify {deep.yaml}", "nests its values deeper than 50"),
    ("verify coco --root {out}{newline}x", "\\nx' holds a control character"),
    ("verify folder --root {out}/none", "is not a folder"),
    ("generate {pictures}", "required: --method, --out"),
    ("list --plugin {plugin.py}", "failed while being imported: ZeroDivisionError"),
    ("list {escape}[0m", "invalid choice: '\\x1b[0m'"),
    ("tr{bidi}ain", "invalid choice: 'tr\\u202eain'"),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name → what stands for it in the words of a case."""
    root = tmp_path_factory.mktemp("bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HASHING_CACHE", str(root / "cache"))
        pictures = write_class_folders(root / "pictures")
        words = ["method=csq", "dataset=folder", f"dataset.root={pictures}", *PIXELS, *QUICK]
        finished = run(*words, "eval.select=last", f"output={root / 'runs'}")
    (root / "empty").mkdir()
    (root / "loop").symlink_to(root / "loop")
    return {
        "root": str(root), "pictures": str(pictures), "run": str(finished.path),
        "captioned": str(write_captioned(root / "captioned")), "empty": str(root / "empty"),
        "loop": str(root / "loop"), "newline": "\n", "escape": "\x1b", "bidi": "\u202e",
        "surrogate": "\udcff",
    }  # fmt: skip


class _Filled(dict[str, str]):
    """Gives places by name, and writes the files of ``FILES`` that are asked for."""

    def __missing__(self, name: str) -> str:
        path, content = Path(self["root"]) / name, FILES[name]
        if callable(content):
            content(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)


def _filled(text: str, places: dict[str, str]) -> str:
    names = {f"{{{name}}}": name for name in (*places, *FILES)}
    pattern = "|".join(map(re.escape, names))
    filled = _Filled(places)
    return re.sub(pattern, lambda found: filled[names[found[0]]], text)


@pytest.mark.parametrize(("words", "said"), CASES, ids=map(str, range(len(CASES))))
def test_one_sentence(words, said, places, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    here = {**places, "out": str(tmp_path / "out")}
    try:
        code = main.main([_filled(word, here) for word in words.split(" ") if word])
    except SystemExit as end:  # argparse's own errors
        code = end.code
    out, err = capfd.readouterr()
    lines = err.split("\n")[:-1]
    assert code == 2, err
    assert "Traceback" not in out
    assert lines[-1].startswith("error: ") and "Traceback" not in err
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert _filled(said, here) in lines[-1]
    assert len(lines[-1]) < 2000 and all(line.isprintable() for line in lines)
