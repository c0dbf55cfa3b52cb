"""The folder: cut and broken lines, what may not be mixed, room on the disk."""

from __future__ import annotations

import json

import pytest

from runners.generation import output_folder as folders
from runners.generation.output_folder import Lines, OutputFolder, check_space
from utils.errors import UserError

DATA = {"name": "toy", "rows": 3}


@pytest.mark.parametrize(
    "tail", [b'{"row": 2, "te', b'{"row": 2, "text": "x"}', b"\0\0\0", b"\0\0\n", b""]
)
def test_a_last_line_that_was_cut_off(tail, tmp_path):
    file = tmp_path / "lines.jsonl"
    whole = b'{"row": 0, "text": "\xc3\xa9t\xc3\xa9"}\n{"row": 1, "text": "b"}\n'
    file.write_bytes(whole + tail)
    lines = Lines(file, "row")
    assert {row: entry["text"] for row, entry in lines.entries.items()} == {0: "été", 1: "b"}
    assert file.read_bytes() == whole + tail, "reading changes nothing"
    lines.repair()
    assert file.read_bytes() == whole
    lines.append([{"row": 2, "text": "c"}])
    lines.append([{"row": 3, "text": "line\nbreak"}])
    assert [json.loads(line)["row"] for line in file.read_text().splitlines()] == [0, 1, 2, 3]
    assert Lines(file, "row").entries == lines.entries


@pytest.mark.parametrize("bad", [b"nonsense", b'{"text": "a"}', b"[1]", b""])
def test_another_line_that_is_broken(bad, tmp_path):
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b'{"row": 0}\n' + bad + b'\n{"row": 1}\n')
    with pytest.raises(UserError, match="line 2 is not an object with 'row'"):
        Lines(file, "row")


def filled(path) -> OutputFolder:
    folder = OutputFolder(path, "vtph", DATA)
    with folder.writing():
        folder.record("captions", {"captioner": "here", "fingerprint": "ab", "steps": 2}, 1, 3)
    return folder


def test_what_may_be_added(tmp_path):
    filled(tmp_path)
    folder = OutputFolder(tmp_path, "vtph", DATA)
    folder.check("captions", {"captioner": "moved", "fingerprint": "ab", "steps": 2})
    folder.check("query_images", {"anything": 1})
    with pytest.raises(UserError, match="captions with steps=2, and this command has steps=3"):
        folder.check("captions", {"captioner": "here", "fingerprint": "ab", "steps": 3})
    with pytest.raises(UserError, match="with rows=3, and this command has rows=4"):
        OutputFolder(tmp_path, "vtph", {**DATA, "rows": 4})
    with pytest.raises(UserError, match="with method=vtph, and this command has method=pzsh"):
        OutputFolder(tmp_path, "pzsh", DATA)


def test_folders_that_are_not_ours(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserError, match="not empty and has no manifest.json"):
            OutputFolder(path, "vtph", DATA)
    for content, part in (("{", "cannot be read"), ("[]", "cannot be read"),
                          ('{"format": 9, "method": "a", "dataset": {}, "parts": {}}',
                           "another format")):  # fmt: skip
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(UserError, match=part):
            OutputFolder(tmp_path, "vtph", DATA)


def test_what_a_killed_process_left_is_cleared(tmp_path):
    folder = filled(tmp_path)
    left = tmp_path / "query_images" / ".7.png.abcd"
    left.mkdir(parents=True)
    (left / "7.png").write_bytes(b"half")
    with folder.writing():
        assert not left.exists()


def test_room(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "free_space", lambda path: 1000)
    check_space(tmp_path, 1000)
    with pytest.raises(UserError, match=r"up to 2.0 kB may be needed.* has 1.0 kB free; make room"):
        check_space(tmp_path, 2000)


def test_space_of_a_folder_that_is_not_there_yet(tmp_path):
    assert folders.free_space(tmp_path / "a" / "b") > 0
