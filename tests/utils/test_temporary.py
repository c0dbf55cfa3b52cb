"""What a killed process left is removed, what a living one makes is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers import ROOT
from utils import temporary
from utils.files import atomic_path, reserve, sweep_debris

MAKER = (
    "import sys, time\nfrom pathlib import Path\nfrom utils.files import atomic_path\n"
    "with atomic_path(Path(sys.argv[1])) as path:\n"
    "    path.write_bytes(bytes(100_000)); print('made', flush=True); time.sleep(60)"
)


@pytest.fixture
def maker(tmp_path):
    command = [sys.executable, "-c", MAKER, str(tmp_path / "entry")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "made\n"
    yield process
    process.kill()
    process.communicate()


def test_of_a_killed_process(maker, tmp_path, caplog):
    maker.kill()
    maker.wait()
    assert len(list(tmp_path.iterdir())) == 1
    sweep_debris(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert "removed 1 half-made entry of ended processes" in caplog.text
    assert "102.4 kB freed" in caplog.text or "kB freed" in caplog.text


def test_of_a_stopped_process_nothing_is_removed(maker, tmp_path):
    maker.send_signal(signal.SIGSTOP)
    assert temporary.sweep(tmp_path) == (0, 0) and len(list(tmp_path.iterdir())) == 1
    maker.send_signal(signal.SIGCONT)


def test_ones_own_is_not_removed(tmp_path):
    with atomic_path(tmp_path / "a") as path:
        assert temporary.sweep(tmp_path) == (0, 0)
        path.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("host", "boot", "hours", "removed"),
    [
        ("own", "00000000", 0, False), ("own", "00000000", 2, True),
        ("00000000", "00000000", 100, False), ("00000000", "00000000", 200, True),
    ],
)  # fmt: skip
def test_of_another_boot_or_host_only_what_is_old(tmp_path, host, boot, hours, removed):
    host = temporary._place()[0] if host == "own" else host
    left = tmp_path / f".entry.part-{host}-{boot}-7-abcdefgh"
    left.mkdir()
    (left / "entry").write_text("half")
    for path in (left / "entry", left):
        os.utime(path, (time.time() - hours * 3600,) * 2)
    assert temporary.sweep(tmp_path)[0] == removed and left.exists() != removed


def test_of_an_earlier_version_after_a_day(tmp_path):
    for name, hours in ((".entry.abcd_123", 25), (".entry.abcd_124", 1), (".claim", 99)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - hours * 3600,) * 2)
    temporary.sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".claim", ".entry.abcd_124"]


def test_a_folder_that_a_sweeper_took_is_made_anew(tmp_path, monkeypatch):
    made = []
    real = temporary.tempfile.mkdtemp

    def mkdtemp(**keys):
        made.append(real(**keys))
        if len(made) == 1:
            temporary.sweep(tmp_path)  # between the making and the lock
        return made[-1]

    monkeypatch.setattr(temporary.tempfile, "mkdtemp", mkdtemp)
    with temporary.owned_folder(tmp_path, "a") as folder:
        assert folder.is_dir() and str(folder) == made[1] and len(made) == 2


def test_a_name_of_255_bytes(tmp_path):
    with atomic_path(tmp_path / ("ü" * 127)) as path:
        path.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["ü" * 127]


def test_all_is_on_the_disk_before_the_rename(tmp_path, monkeypatch):
    order = []
    sync, replace = os.fsync, os.replace

    def fsync(file):
        order.append(os.readlink(f"/proc/self/fd/{file}").rpartition("/")[2])
        sync(file)

    def rename(source, target):
        order.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    with atomic_path(tmp_path / "folder") as path:
        path.mkdir()
        (path / "file").write_text("x")
    assert order == ["file", "folder", "rename", tmp_path.name]


@pytest.mark.parametrize("fallocate", ["here", "not supported", "missing"])
def test_reserved_space_reads_as_zeros(tmp_path, monkeypatch, fallocate):
    def refuse(*_):
        raise OSError(95, "not supported")

    if fallocate == "missing":
        monkeypatch.delattr(os, "posix_fallocate")
    elif fallocate == "not supported":
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    with open(tmp_path / "a", "wb") as stream:
        stream.write(b"head")
        stream.flush()
        reserve(stream.fileno(), 4, 5_000_000)
    assert (tmp_path / "a").read_bytes() == b"head" + bytes(5_000_000)
    assert (tmp_path / "a").stat().st_blocks * 512 >= 5_000_000  # not sparse


def test_work_that_can_be_gone_on_with_stays_for_a_week(tmp_path):
    for name, days in (("old.blocks", 8), ("new.blocks", 6), ("held.blocks", 8)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - days * 86400,) * 2)
    with temporary.held_folder(tmp_path / "held.blocks"):
        assert temporary.sweep(tmp_path)[0] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["held.blocks", "new.blocks"]
