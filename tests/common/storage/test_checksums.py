"""A cache entry that is not as it was written is built again; asking costs next to nothing."""

from __future__ import annotations

import json
import shutil

import pytest

from common.storage import checksums
from common.storage.cache import cache_root, cached

SIZE = 5000


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checksums, "BLOCK", 1 << 11)  # of several blocks
    monkeypatch.setattr(checksums, "_PIECE", 1 << 10)
    return tmp_path / "cache"


class Builder:
    def __init__(self, folder=False):
        self.calls, self.folder = 0, folder

    def __call__(self, path):
        self.calls += 1
        if self.folder:
            path.mkdir()
            (path / "small").write_text("{}")
        (path / "large" if self.folder else path).write_bytes(bytes(range(250)) * (SIZE // 250))


def zeroed_half(file):
    with open(file, "r+b") as stream:
        stream.seek(SIZE // 2)
        stream.write(bytes(SIZE - SIZE // 2))


def truncated(file):
    file.write_bytes(file.read_bytes()[: SIZE // 2])


def one_bit(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def emptied(file):
    file.write_bytes(b"")


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("damage", [zeroed_half, truncated, one_bit, emptied])
def test_a_damaged_entry_is_built_again_and_told(damage, folder, caplog):
    build = Builder(folder)
    entry = cached("kind", "key", build)
    file = entry / "large" if folder else entry
    before = file.read_bytes()
    damage(file)
    assert cached("kind", "key", build) == entry and build.calls == 2
    assert file.read_bytes() == before
    (line,) = [r.getMessage() for r in caplog.records]
    assert str(entry) in line and "is damaged" in line and "built again" in line
    assert cached("kind", "key", build) == entry and build.calls == 2


@pytest.mark.parametrize(
    "change", ["file gone", "file added", "no sums", "torn sums", "other sums"]
)
def test_other_damage(root, change):
    build = Builder(folder=True)
    entry = cached("kind", "key", build)
    sums = root / "kind" / "key.sums"
    if change == "file gone":
        (entry / "small").unlink()
    elif change == "file added":
        (entry / "more").write_text("")
    elif change == "no sums":
        sums.unlink()
    else:
        sums.write_text("{" if change == "torn sums" else '{"large": 3}')
    cached("kind", "key", build)
    assert build.calls == 2 and checksums.damage(entry) is None


def test_whole_files_are_not_read_again(monkeypatch):
    build = Builder()
    entry = cached("kind", "key", build)
    monkeypatch.setattr(checksums, "_block_sums", lambda file: pytest.fail("it was read"))
    assert cached("kind", "key", build) == entry and build.calls == 1


def test_a_copied_cache_is_read_once(root, tmp_path, monkeypatch):
    build = Builder(folder=True)
    cached("kind", "key", build)
    shutil.copytree(root, tmp_path / "copy")
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "copy"))
    read = []
    real = checksums._block_sums
    monkeypatch.setattr(checksums, "_block_sums", lambda file: read.append(file) or real(file))
    cached("kind", "key", build)
    assert build.calls == 1 and read
    read.clear()
    cached("kind", "key", build)
    assert read == [] and cache_root() == tmp_path / "copy"


def test_damage_that_restores_the_time_is_found(tmp_path):
    import os

    build = Builder()
    entry = cached("kind", "key", build)
    before = entry.stat()
    one_bit(entry)
    os.utime(entry, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "checksum" in str(checksums.damage(entry))


def test_sums_are_of_every_block(root):
    cached("kind", "key", Builder())
    record = json.loads((root / "kind" / "key.sums").read_text())["."]
    assert record["bytes"] == SIZE and len(record["crc32"]) == 3
