"""Things made once and kept, also when several processes ask at once."""

import subprocess
import sys

import pytest

from common.storage.cache import cache_root, cached
from tests.helpers import ROOT
from utils.errors import UserError


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_built_once_then_found(root):
    calls = []

    def build(path):
        calls.append(path)
        path.write_text("made")

    for _ in range(2):
        assert cached("kind", "key.txt", build).read_text() == "made"
    assert len(calls) == 1 and cache_root() == root
    assert cached("kind", "other.txt", build) == root / "kind" / "other.txt"
    assert len(calls) == 2


def test_a_folder_may_be_built(root):
    def build(path):
        path.mkdir()
        (path / "a").write_text("a")

    assert [p.name for p in cached("kind", "key", build).iterdir()] == ["a"]


def test_a_failure_leaves_nothing_and_the_next_may_try(root):
    def fail(path):
        path.write_text("half")
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        cached("kind", "key", fail)
    assert [p.name for p in (root / "kind").iterdir()] == ["key.lock"]
    assert cached("kind", "key", lambda path: path.write_text("whole")).read_text() == "whole"


def test_a_killed_builder_leaves_nothing_and_releases_the_lock(root):
    code = (
        "import os, signal\nfrom common.storage.cache import cached\ndef build(path):\n"
        "    path.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "cached('kind', 'key', build)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -9
    assert not (root / "kind" / "key").exists()
    assert cached("kind", "key", lambda path: path.write_text("whole")).read_text() == "whole"


def test_two_processes_build_once(root, tmp_path):
    code = (
        "import os, time\nfrom common.storage.cache import cached\ndef build(path):\n"
        f"    open({str(tmp_path / 'calls')!r}, 'a').write('x')\n    time.sleep(0.3)\n"
        "    path.write_text(str(os.getpid()))\n"
        "print(cached('kind', 'key', build).read_text())"
    )
    command = [sys.executable, "-c", code]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    printed = [process.communicate()[0].strip() for process in both]
    assert (tmp_path / "calls").read_text() == "x"
    assert printed[0] == printed[1] and int(printed[0]) in [process.pid for process in both]


def test_a_file_in_the_way_of_the_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="Cannot write .*choose another folder"):
        cached("kind", "key", lambda path: path.write_text(""))
