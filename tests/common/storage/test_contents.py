"""Content of files: read once, read again when ``stat`` says otherwise, whatever name and time."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from common.storage import contents
from common.storage.contents import content_digest, content_digests


@pytest.fixture(autouse=True)
def reads(tmp_path, monkeypatch):
    """Give every test a store of its own, record at once, and return the names that are read."""
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "SETTLED_NS", -1)
    names: list[str] = []
    read = contents._read

    def counting(file: Path):
        names.append(file.name)
        return read(file)

    monkeypatch.setattr(contents, "_read", counting)
    return names


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def another_process() -> None:
    """Forget what this process has read of stores."""
    contents._store.cache_clear()


def test_each_file_is_read_once_by_any_process(tmp_path, reads):
    files = [tmp_path / f"{i}.bin" for i in range(5)]
    for i, file in enumerate(files):
        file.write_bytes(bytes([i]) * 100)
    expected = [sha(bytes([i]) * 100) for i in range(5)]
    assert content_digests(files) == expected and len(reads) == 5
    assert content_digests(files[::-1]) == expected[::-1] and len(reads) == 5
    another_process()
    assert content_digests(files) == expected and len(reads) == 5


def written_in_place(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def renamed_onto(file: Path, data: bytes) -> None:
    other = file.with_suffix(".new")
    other.write_bytes(data)
    times = file.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(file)


def exchanged(file: Path, data: bytes) -> None:
    aside = file.with_suffix(".old")
    file.rename(aside)
    renamed = file.with_suffix(".new")
    renamed.write_bytes(data)
    os.link(renamed, file)


@pytest.mark.parametrize("replace", [written_in_place, renamed_onto, exchanged])
def test_equal_name_size_and_time_do_not_hide_other_bytes(replace, tmp_path, reads):
    file = tmp_path / "a.png"
    file.write_bytes(b"one way")
    before = file.stat()
    assert content_digest(file) == sha(b"one way")
    replace(file, b"another")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert content_digest(file) == sha(b"another") and len(reads) == 2
    another_process()
    assert content_digest(file) == sha(b"another") and len(reads) == 2


def test_a_touched_or_copied_file_is_read_again_and_is_the_same(tmp_path, reads):
    file, copy = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"x")
    copy.write_bytes(b"x")
    first = content_digest(file)
    os.utime(file, ns=(5, 5))
    assert content_digest(file) == content_digest(copy) == first and len(reads) == 3


def test_what_changed_a_moment_ago_is_not_recorded(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(contents, "SETTLED_NS", 10**12)
    file = tmp_path / "a"
    for data in (b"1", b"2"):  # perhaps within one tick of the clock
        file.write_bytes(data)
        assert content_digest(file) == sha(data)
    content_digest(file)
    assert len(reads) == 3


def test_what_is_no_readable_file_has_no_content(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    names = ("pipe", "folder", "loop", "gone", "nul \0")
    assert content_digests([tmp_path / name for name in names]) == [""] * 5
    assert content_digests([]) == []


@pytest.mark.parametrize("damage", ["torn", "flipped", "zeroed", "deleted", "a line of text"])
def test_a_damaged_store_costs_a_read_and_never_gives_another_answer(damage, tmp_path, reads):
    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.write_bytes(file.name.encode())
    content_digests(files)
    store = tmp_path / "cache" / "contents" / "files.bin"
    data = bytearray(store.read_bytes())
    assert len(data) == 3 * 64
    if damage == "torn":
        store.write_bytes(data[:-10])
    elif damage == "flipped":
        data[45] ^= 1
        store.write_bytes(data)
    elif damage == "zeroed":
        store.write_bytes(bytes(64) + data[64:])
    elif damage == "deleted":
        store.unlink()
    else:
        store.write_bytes(b"not a store")
    another_process()
    for _ in range(2):
        assert content_digests(files) == [sha(file.name.encode()) for file in files]
    assert len(reads) == 3 + (3 if damage in ("deleted", "a line of text") else 1)
    another_process()
    content_digests(files)
    assert len(reads) == 3 + (3 if damage in ("deleted", "a line of text") else 1)


def test_records_of_other_processes_are_seen(tmp_path, reads):
    file = tmp_path / "a"
    file.write_bytes(b"x")
    mine = contents._Store(tmp_path / "cache" / "contents" / "files.bin")
    content_digest(file)  # by the other one
    mine.refresh()
    assert list(mine.digests.values()) == [sha(b"x")]
