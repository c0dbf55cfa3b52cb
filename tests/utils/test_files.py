"""Whole files or none, and a sentence when writing fails."""

import errno
import hashlib
import json
import os

import pytest

from utils import files
from utils.errors import UserError


def test_a_file_appears_only_when_complete(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    with files.atomic_path(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
    assert target.read_text() == "half"
    assert [p.name for p in target.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file(tmp_path, error):
    files.write_text(tmp_path / "file", "old")
    with pytest.raises(error), files.atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("new")
        raise error
    assert (tmp_path / "file").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for names in (["a", "b"], ["c"]):
        with files.atomic_path(tmp_path / "folder") as temporary:
            temporary.mkdir()
            for name in names:
                (temporary / name).write_text(name)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["c"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_failure_leaves_the_old_folder(tmp_path):
    with files.atomic_path(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("a")
    with pytest.raises(RuntimeError), files.atomic_path(tmp_path / "folder") as temporary:
        temporary.mkdir()
        raise RuntimeError
    assert (tmp_path / "folder" / "a").read_text() == "a"


def test_json_keeps_the_order_and_refuses_nan(tmp_path):
    files.write_json(tmp_path / "a.json", {"z": 1, "a": [0.5, None]})
    assert (tmp_path / "a.json").read_text() == json.dumps(
        {"z": 1, "a": [0.5, None]}, indent=2
    ) + "\n"
    with pytest.raises(ValueError, match="Out of range"):
        files.write_json(tmp_path / "a.json", {"z": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text())["z"] == 1


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write .*file/sub.*: .*choose another folder"):
        files.write_text(tmp_path / "file" / "sub", "x")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "disk is full"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
    ],
)  # fmt: skip
def test_reasons_in_words(tmp_path, code, message):
    with (
        pytest.raises(UserError, match=f"Cannot create '{tmp_path}': .*{message}"),
        files.saying_why(tmp_path, "create"),
    ):
        raise OSError(code, os.strerror(code))


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(OSError, match="Input/output"), files.saying_why(tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_digest_depends_on_where_parts_end(tmp_path):
    assert files.digest("ab", "c") != files.digest("a", "bc")
    assert files.digest("é") == files.digest("é".encode())
    assert len(files.digest()) == 16
    (tmp_path / "a").write_bytes(b"abc")
    assert files.file_digest(tmp_path / "a") == "ba7816bf8f01cfea"  # SHA-256("abc"), FIPS 180-2


@pytest.mark.parametrize("where", [0, 3_000_000, -1])
def test_the_digest_of_a_file_is_that_of_all_of_it(where, tmp_path):
    content = bytearray(6_000_000)
    (tmp_path / "one").write_bytes(content)
    content[where] = 1
    (tmp_path / "two").write_bytes(content)
    one, two = (files.file_digest(tmp_path / name) for name in ("one", "two"))
    assert one != two
    assert two == hashlib.sha256(content).hexdigest()[:16]
