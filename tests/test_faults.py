"""Errors that no code foresaw: a sentence, a file with the traceback, and the right exit code."""

from __future__ import annotations

import errno
import io
import re
import sys
from pathlib import Path

import pytest

import main
from runners.commands import report
from tests.helpers import QUICK
from tests.test_shown import controls
from utils import faults

RAISED = [
    (OSError(errno.EIO, "Input/output error", "/x/codes"), "'/x/codes' cannot be used: Input/o"),
    (OSError("truncated file\nof HDF5"), "refuses: truncated file"),
    (UnicodeEncodeError("utf-8", "caf\udce9", 3, 4, "surrogates not allowed"), "'caf\\xe9'; re"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "not UTF-8 text"),
    (ValueError("embedded null byte"), "holds a NUL byte"),
    (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
    (MemoryError("Unable to allocate 9. TiB"), "not enough memory (Unable to allocate 9. TiB)"),
    (RuntimeError("CUDA out of memory. Tried\nto allocate"), "not enough memory (CUDA out of mem"),
    (ModuleNotFoundError("No module named 'x'", name="absent_library"), "'absent_library' is not"),
]  # fmt: skip


@pytest.fixture
def raising(monkeypatch, capfd, tmp_path):
    """Return a function that has ``report`` raise an error, and returns code and line."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def tell(error: BaseException) -> tuple[int, str]:
        def run(options: object) -> None:
            raise error

        monkeypatch.setattr(report, "run", run)
        code = main.main(["report", "x"])
        out, err = capfd.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("error: ")
        assert not controls(err)
        return code, err

    return tell


@pytest.mark.parametrize(("error", "said"), RAISED)
def test_what_the_user_can_mend(error, said, raising, tmp_path):
    code, line = raising(error)
    assert code == 2 and said in line
    assert not list(tmp_path.glob("hashing-fault-*"))


@pytest.mark.parametrize(
    "error", [ValueError("a\nb \x1b[31m"), KeyError("x"), AssertionError(), RuntimeError("[/nope]")]
)
def test_a_fault_of_the_program(error, raising, tmp_path):
    code, line = raising(error)
    assert code == 1 and type(error).__name__ in line
    assert "a fault of the program" in line and "Reporting a fault" in line
    assert re.search(r"\(test_faults.py:\d+\)", line)
    (file,) = tmp_path.glob("hashing-fault-*.txt")
    assert str(file) in line
    text = file.read_text()
    assert text.startswith("Traceback") and type(error).__name__ in text and not controls(text)


def test_a_missing_module_of_ours_is_a_fault(raising):
    assert raising(ModuleNotFoundError("x", name="runners.gone"))[0] == 1


def test_a_fault_while_no_file_can_be_written(raising, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(faults.tempfile, "NamedTemporaryFile", refuse)
        code, line = raising(ValueError("x"))
    assert code == 1 and "traceback is in" not in line


PLUGIN = """
from common.registry import LOSSES
from models.base import HashLoss, Terms

@LOSSES.register("faulty", needs=("image_code",))
class Faulty(HashLoss):
    "Fails."
    def forward(self, outputs, batch, progress):
        return Terms(code=outputs.image_code.reshape(3, 1, 7).mean())
"""


def test_an_error_in_a_plugin_names_its_file_and_line(pictures, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    words = [*pictures, *QUICK, f"plugins=[{file}]", "loss.name=faulty"]
    assert main.main(["train", "method=csq", *words, f"output={tmp_path / 'out'}"]) == 2
    err = capfd.readouterr().err
    assert f"error: Plugin '{file}', line 9, raised RuntimeError: shape '[3, 1, 7]'" in err
    assert "Traceback" not in err and list(tmp_path.glob("hashing-fault-*.txt"))
    (log,) = (tmp_path / "out").rglob("log.txt")
    assert "Traceback" in log.read_text()


def test_output_whose_encoding_lacks_signs(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main.main(["list", "methods"]) == 0
    stream.flush()
    assert b"csq" in stream.buffer.getvalue()


def test_file_names_that_are_not_utf8(tmp_path, capfd, monkeypatch):
    from tests.helpers import PIXELS, write_class_folders

    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    root = write_class_folders(tmp_path / "pictures", per_class=8)
    (root / "bee" / "3.png").rename(Path(f"{root}/bee/caf\udce9.png"))
    words = ["method=csq", "dataset=folder", f"dataset.root={root}", *PIXELS, *QUICK]
    assert main.main(["train", *words, f"output={tmp_path / 'out'}"]) == 0
    folder = capfd.readouterr().out.splitlines()[-1]
    query = ["--image", f"{root}/bee/caf\udce9.png", "--html", str(tmp_path / "page.html")]
    assert main.main(["search", folder, *query]) == 0
    assert "caf\\xe9.png" in capfd.readouterr().out
    out = str(tmp_path / "codes.h5")
    assert main.main(["encode", folder, "--images", str(root), "--out", out]) == 2
    assert "caf\\xe9.png'; rename it." in capfd.readouterr().err  # HDF5 keeps UTF-8
    assert main.main(["report", str(tmp_path / "out"), "--html", str(tmp_path / "r.html")]) == 0
