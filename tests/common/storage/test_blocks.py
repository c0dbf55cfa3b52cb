"""Entries by blocks: whatever moment a process is killed at, what was finished is believed once."""

import json
import os

import pytest

from common.storage.cache import cached, cached_by_blocks
from utils import files

ROWS = 12


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path))
    return tmp_path / "kind"


class Builder:
    """Writes rows of 4 bytes, 3 to a block, and lists those that it wrote."""

    def __init__(self, fail_at=None):
        self.rows, self.fail_at = [], fail_at

    def __call__(self, blocks):
        blocks.path.touch()
        with open(blocks.path, "r+b") as stream:
            for row in range(blocks.done, ROWS):
                if row == self.fail_at:
                    raise RuntimeError("broken")
                files.write_at(stream.fileno(), b"%04d" % row, 4 * row)
                self.rows.append(row)
                if row % 3 == 2:
                    blocks.commit(row + 1, [(".", 4 * blocks.done, 12)], {"row": row})


WHOLE = b"".join(b"%04d" % row for row in range(ROWS))


def test_what_was_committed_stays_and_the_rest_is_done(root):
    with pytest.raises(RuntimeError):
        cached_by_blocks("kind", "key", Builder(8))
    again = Builder()
    assert cached_by_blocks("kind", "key", again).read_bytes() == WHOLE
    assert again.rows == list(range(6, ROWS))
    assert sorted(p.name for p in root.iterdir()) == ["key", "key.lock", "key.sums"]
    assert cached("kind", "key", Builder()).read_bytes() == WHOLE  # it is whole for everybody


def test_a_failure_before_the_first_block_leaves_nothing(root):
    with pytest.raises(RuntimeError):
        cached_by_blocks("kind", "key", Builder(2))
    assert [p.name for p in root.iterdir()] == ["key.lock"]


@pytest.mark.parametrize("cut", ["torn line", "no JSON", "bytes", "missing file", "other journal"])
def test_only_blocks_in_front_that_are_whole_are_believed(root, cut):
    with pytest.raises(RuntimeError):
        cached_by_blocks("kind", "key", Builder(11))  # three blocks
    journal, data = root / "key.blocks" / "journal.jsonl", root / "key.blocks" / "key"
    lines = journal.read_text().splitlines(keepends=True)
    if cut == "torn line":
        journal.write_text("".join(lines)[:-20])
    elif cut == "no JSON":
        journal.write_text(lines[0] + "{]\n" + lines[2])
    elif cut == "bytes":
        data.write_bytes(data.read_bytes().replace(b"0004", b"0005"))
    elif cut == "missing file":
        data.unlink()
    else:
        journal.write_text(json.dumps({"end": 3, "other": 1}) + "\n")
    first = {"torn line": 6, "no JSON": 3, "bytes": 3}.get(cut, 0)
    again = Builder()
    assert cached_by_blocks("kind", "key", again).read_bytes() == WHOLE
    assert again.rows == list(range(first, ROWS))


@pytest.mark.parametrize("step", range(6))
def test_killed_while_the_finished_entry_gets_its_name(root, monkeypatch, step):
    """Nothing is built twice, whichever rename was the last."""
    replace, count = os.replace, []

    def stop(source, target):
        count.append(target)
        if len(count) > step:
            raise KeyboardInterrupt
        replace(source, target)

    builder = Builder()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        try:
            cached_by_blocks("kind", "key", builder)
        except KeyboardInterrupt:
            assert len(count) == step + 1
    assert builder.rows == list(range(ROWS))
    again = Builder()
    assert cached_by_blocks("kind", "key", again).read_bytes() == WHOLE
    assert again.rows == []
